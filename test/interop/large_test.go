package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// crowd opens 10,000 connections that asked once and wait, and 200 that asked for the large
// file and read nothing of it; it says by how much the memory of what serves grew, and how
// long a page takes meanwhile.
const crowd = `
import glob, os, resource, socket, sys, time, urllib.request
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
def status(pid, key):
    try:
        for line in open("/proc/%s/status" % pid):
            if line.startswith(key + ":"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
root = int(sys.argv[1])
def serving():
    pids, found = {root}, True
    while found:
        found = False
        for at in glob.glob("/proc/[0-9]*"):
            pid = int(at[6:])
            if pid not in pids and status(pid, "PPid") in pids:
                pids.add(pid)
                found = True
    return pids
def memory():
    return sum(status(p, "RssAnon") for p in serving()) // 1024
before = memory()
def ask(path, read):
    s = socket.create_connection(("127.0.0.1", 8440))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.sendall(("GET %s HTTP/1.1\r\nHost: mirror\r\n\r\n" % path).encode())
    if read:
        s.recv(4096)
    return s
kept = [ask("/healthz", True) for _ in range(10000)]
slow = [ask("/files/large.bin", False) for _ in range(200)]
time.sleep(1)
begin = time.time()
assert urllib.request.urlopen("http://127.0.0.1:8440/files/").status == 200
took = time.time() - begin
print("connections", len(kept) + len(slow), "grew", memory() - before, "MiB took", int(took * 1000), "ms", flush=True)
assert memory() - before < 400, "memory grew too much"
assert took < 5, "nobody else is served"
for s in kept[::1000]:
    s.sendall(b"GET /healthz HTTP/1.1\r\nHost: mirror\r\n\r\n")
    assert s.recv(4096).startswith(b"HTTP/1.1 200"), "it was dropped"
print("all are served")
`

// A large file is given in ranges, and a download that was cut off goes on where it was;
// 10,000 connections that only wait, and readers that do not read, cost a bounded amount of
// memory and keep nobody from being served. ENISLE_SOAK makes the file 10 GB.
func TestLargeFilesAndManyConnections(t *testing.T) {
	python, curl := client(t, "python3"), client(t, "curl")
	size := int64(1e9)
	if os.Getenv("ENISLE_SOAK") != "" {
		size = 1e10
	}
	dir, enisle := sites(t, []byte("x"))
	for _, name := range []string{"alice", "bob"} {
		enisle("keygen", "--no-passphrase", "--out", name+".key")
		enisle("-C", "high", "person", "add", name, "--role", "approver", "--key", name+".key.pub")
	}
	// A hole with marks in it: every range is its own.
	large := filepath.Join(dir, "large.bin")
	f, err := os.Create(large)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Truncate(size)
	for at := int64(0); err == nil && at < size; at += size / 10 {
		_, err = f.WriteAt([]byte("mark "+hex.EncodeToString([]byte{byte(at >> 24), byte(at >> 16)})), at)
	}
	h := sha256.New()
	if err == nil {
		_, err = io.Copy(h, f)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	write(t, filepath.Join(dir, "enisle.yaml"), "name: large\nbring:\n  files: [ large.bin ]\n")
	write(t, filepath.Join(dir, "crowd.py"), crowd)
	crossAgain(t, dir, enisle)
	out := inside(t, dir, `
rm -rf large.bin low media*
# Cut off twice, then gone on with.
timeout 0.3 `+curl+` -s -o got $URL/files/large.bin || true
`+curl+` -s -C - --limit-rate 400M --max-time 1 -o got $URL/files/large.bin || true
echo "cut off at $(stat -c %s got)"
`+curl+` -s -C - -o got $URL/files/large.bin
sha256sum got
`+curl+` -s -r -5 -o tail $URL/files/large.bin; stat -c 'tail %s' tail
`+curl+` -s -o /dev/null -w 'past %{http_code}\n' -r $(stat -c %s got)- $URL/files/large.bin
rm got
`+python+` crowd.py $serve
`)
	for _, want := range []string{sum, "tail 5", "past 416", "connections 10200", "all are served"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	t.Log(out[strings.Index(out, "connections"):])
}
