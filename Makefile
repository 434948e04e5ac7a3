# Thin: each target calls a script or the go command. Everything a target needs
# it installs by package name, or names what to install.
SHELL := /bin/bash
export CGO_ENABLED ?= 0
GO_FLAGS := -trimpath

.PHONY: build demo test lint interop conformance bench bench-mirror bench-gateway corpus fuzz soak clean

build: bin/enisle

bin/enisle: FORCE
	@go build $(GO_FLAGS) -o $@ ./cmd/enisle
FORCE:

demo: setup-demo build
	./bin/enisle demo $(DEMO_FLAGS) demo

test: setup-test
	@./scripts/test.sh test $$(go list ./... | grep -v /test/interop)

interop: setup-test
	@./scripts/test.sh interop -count=1 ./test/interop/... ./internal/infer/engine/llamacpp/...
	@./scripts/test.sh sigstore -count=1 -tags sigstore -run 'Bundle|Identity' ./internal/judge/sigstore ./test/crossing

conformance:
	@./scripts/test.sh conformance -count=1 -run Conformance ./test/interop/...
	@sed -n '/Pass\.\.\|FAIL\.\.\|: *Pass$$/s/^ *//p' .cache/conformance.log

lint: setup-lint
	./scripts/lint.sh

bench: build
	./scripts/bench.sh

bench-mirror: setup-bench build
	go run ./test/bench/mirror -enisle bin/enisle $(BENCH_FLAGS)
	@echo; echo "an index of 200,000 Python files: a page that nobody asked for, again, and the list"
	@go test -run '^$$' -bench 200000 -benchtime 50x ./internal/ecosystem/pypi | grep ^Benchmark

bench-gateway: build
	go run ./test/bench/gateway -enisle bin/enisle $(BENCH_FLAGS)

corpus: setup-test
	./test/corpus/corpus.sh

fuzz:
	./scripts/fuzz.sh

soak: setup-soak
	ENISLE_SOAK=1 ./scripts/test.sh soak -count=1 ./test/crossing/...
	ENISLE_SOAK=1 ./scripts/test.sh large -count=1 -run Large ./test/interop
	ENISLE_SOAK=1 ./scripts/test.sh garak -count=1 -run Garak ./test/interop
	ENISLE_SOAK=1 ./scripts/test.sh llama-server -count=1 -run LlamaServer ./test/interop
	ENISLE_SOAK=1 ./scripts/test.sh vllm -count=1 -run VLLM ./test/interop

setup-%:
	@./scripts/setup.sh $*

clean:
	rm -rf bin demo
