// Command enisle runs AI on an island: it brings models, packages and data over
// an air gap and serves them inside. See README.md.
package main

import (
	"os"

	"enisle/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
