#!/usr/bin/env bash
# Every fragment begins with "Kind: What changed", then an empty line, then text.
set -euo pipefail
cd "$(dirname "$0")/../changelog/unreleased"
bad=0
for f in *.md; do
  head -1 "$f" | grep -Eq '^(Enhancement|Security|Bugfix|Change): [A-Z].{8,70}[^.]$' || { echo "$f: first line" >&2; bad=1; }
  [ -z "$(sed -n 2p "$f")" ] && [ -n "$(sed -n 3p "$f")" ] || { echo "$f: line 2 is empty and text follows" >&2; bad=1; }
done
exit $bad
