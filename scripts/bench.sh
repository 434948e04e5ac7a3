#!/usr/bin/env bash
# bench.sh [FLAGS of test/bench]: our figures beside the machine's.
set -euo pipefail
cd "$(dirname "$0")/.."
go run ./test/bench -enisle bin/enisle "$@"
