#!/usr/bin/env bash
# bench.sh [FLAGS of test/bench]: our figures beside the machine's.
set -euo pipefail
cd "$(dirname "$0")/.."
go run ./test/bench -enisle bin/enisle "$@"
echo
echo "compression of weights on one core; the structure of models of 100 GB (safetensors, GGUF, ONNX); a pickle of 16 GB of tensors; 10,000 findings by the strict policy; 10,000 wheels inspected and held against 20,000 advisories"
go test -run '^$' -bench . -benchtime 1x ./internal/carry/planes ./internal/judge/inspect/safetensors ./internal/judge/inspect/gguf ./internal/judge/inspect/pickle ./internal/judge/policy ./internal/judge/inspect/onnx ./internal/app | grep '^Benchmark'
