#!/usr/bin/env bash
# Formatting, vet, staticcheck, changelog fragments. Tools are pinned and kept
# in .cache/bin.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOBIN="$PWD/.cache/bin"
tool() { # tool NAME MODULE@VERSION
  local stamp="$GOBIN/.$1-${2##*@}"
  [ -e "$stamp" ] || { echo "installing $2" >&2; CGO_ENABLED=0 go install "$2"; touch "$stamp"; }
}
mkdir -p "$GOBIN"
tool gofumpt mvdan.cc/gofumpt@v0.12.0
tool staticcheck honnef.co/go/tools/cmd/staticcheck@v0.8.2

unformatted=$("$GOBIN/gofumpt" -l $(git ls-files '*.go'))
[ -z "$unformatted" ] || { echo "not formatted by gofumpt: $unformatted" >&2; exit 1; }
go vet ./...
# What only cgo builds, where there is a compiler.
if command -v gcc >/dev/null; then CGO_ENABLED=1 go vet -tags pkcs11 ./internal/site/token ./internal/app ./cmd/enisle; fi
go vet -tags sigstore ./internal/judge/sigstore ./internal/app ./test/crossing
"$GOBIN/staticcheck" ./...
./scripts/changelog.sh
for s in scripts/*.sh .ci/run; do bash -n "$s"; done
go mod tidy -diff >/dev/null || { echo "go.mod is not tidy: run 'go mod tidy'" >&2; exit 1; }
echo "lint: good"
