// Command osv makes exports that look like those of OSV, for trying things out:
// go run ./test/osv --to DIR.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"enisle/internal/judge/vuln/vulntest"
)

func main() {
	to := flag.String("to", "osv", "directory to make")
	n := flag.Int("n", 20_000, "advisories of all ecosystems")
	flag.Parse()
	if err := vulntest.Write(*to, *n, time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
