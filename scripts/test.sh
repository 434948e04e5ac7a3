#!/usr/bin/env bash
# test.sh NAME PATTERN…: runs the tests of packages, prints one line a package,
# every skipped test by name with its reason, and all of what failed.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1; shift
mkdir -p .cache
log=.cache/$name.log
status=0
go test -v -timeout=45m "$@" >"$log" 2>&1 || status=$?
grep -E '^(ok|FAIL|panic:)|^ *--- FAIL' "$log" || true
grep -E -B1 -- '^ *--- SKIP' "$log" | grep -vE '^(--|=== )' | sed 's/^/skipped: /' || true
if [ $status -ne 0 ]; then
  echo "--- what failed, from $log:"
  grep -nE -B30 -- '^ *--- FAIL|^panic:|^FAIL' "$log" | tail -200 || true
fi
exit $status
