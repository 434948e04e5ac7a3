#!/usr/bin/env bash
# fuzz.sh [TIME]: every fuzz target for TIME (default 10m), one after the other. What
# it finds stays under testdata/fuzz of its package, to be committed.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10m}
grep -rl --include='*_test.go' '^func Fuzz' internal | while read -r file; do
  grep -o '^func Fuzz[A-Za-z0-9]*' "$file" | sed 's/func //' | while read -r target; do
    echo "== $(dirname "$file") $target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$(dirname "$file")" </dev/null
  done
done
