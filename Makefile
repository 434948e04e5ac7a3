# Thin: each target calls a script or the go command. Everything a target needs
# it installs by package name, or names what to install.
SHELL := /bin/bash
export CGO_ENABLED ?= 0
GO_FLAGS := -trimpath

.PHONY: build demo test lint interop bench soak clean

build: bin/enisle

bin/enisle: FORCE
	@go build $(GO_FLAGS) -o $@ ./cmd/enisle
FORCE:

demo: setup-demo build
	./bin/enisle demo $(DEMO_FLAGS) demo

test: setup-test
	go test -timeout 15m ./...

interop: setup-test
	go test -count=1 -timeout 20m -tags interop ./test/...

lint: setup-lint
	./scripts/lint.sh

bench: build
	./scripts/bench.sh

soak: setup-test
	ENISLE_SOAK=1 go test -count=1 -timeout 60m ./internal/... ./test/...

setup-%:
	@./scripts/setup.sh $*

clean:
	rm -rf bin demo
