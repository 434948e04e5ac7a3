#!/usr/bin/env bash
# corpus.sh: writes test/corpus/benign anew, with the real libraries in several
# versions, and the names that fitted estimators pickle under. Environments are
# kept in .cache/corpus.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$PWD/test/corpus/benign
names=$PWD/.cache/corpus/names.txt
mkdir -p .cache/corpus
rm -rf "$out" && mkdir -p "$out"
: >"$names"

# set NAME PACKAGE…: an environment with the packages, and the files it makes.
set_of() {
  local name=$1; shift
  local env=$PWD/.cache/corpus/$name
  [ -e "$env/done" ] || { "${PYTHON:-python3}" -m venv "$env" && "$env/bin/pip" install -q "$@" && touch "$env/done"; }
  "$env/bin/python" test/corpus/make.py "$name" "$out" "$names"
}
set_of a numpy==1.24.4 scipy==1.10.1 scikit-learn==1.2.2 joblib==1.2.0 pandas==1.5.3 safetensors==0.4.0
set_of b numpy==1.26.4 scipy==1.13.1 scikit-learn==1.4.2 joblib==1.4.2 pandas==2.2.3 safetensors==0.5.3
set_of c numpy==2.3.4 scipy==1.16.3 scikit-learn==1.7.2 joblib==1.5.2 pandas==2.3.3 safetensors==0.6.2 gguf==0.17.1
set_of d numpy==2.4.6 scikit-learn==1.9.1 joblib==1.6.0 pandas==3.1.1 lightgbm==4.7.0 xgboost-cpu==3.2.0 sentencepiece==0.2.3 lz4==4.4.5
set_of e numpy==1.24.4 scipy==1.11.4 scikit-learn==1.3.2 joblib==1.2.0 pandas==1.5.3
# scikit-learn before 1.0 has no wheels for the Python of the others.
if command -v python3.8 >/dev/null; then
  PYTHON=python3.8 set_of f numpy==1.19.5 scipy==1.7.3 scikit-learn==0.24.2 joblib==1.2.0 pandas==1.1.5
fi
set_of k numpy==1.26.4 keras==3.3.3 jax==0.4.30 jaxlib==0.4.30 h5py==3.11.0 onnx==1.15.0 protobuf==4.25.3 skops==0.9.0 scikit-learn==1.4.2
set_of l numpy==2.3.4 keras==3.12.0 jax==0.8.1 jaxlib==0.8.1 h5py==3.15.1 onnx==1.19.1 skops==0.13.0 scikit-learn==1.7.2
[ -n "${CORPUS_WITHOUT_TENSORFLOW:-}" ] || set_of m tensorflow-cpu==2.15.1
if [ -z "${CORPUS_WITHOUT_TORCH:-}" ]; then
  set_of t numpy==1.26.4 torch==2.4.1
  set_of u numpy==1.26.4 torch==2.4.1
  set_of v numpy==2.3.5 torch==2.13.0 safetensors==0.8.0 gguf==0.19.0
fi
go run ./test/corpus <"$names" >internal/judge/inspect/pickle/names.go
go run mvdan.cc/gofumpt@v0.12.0 -l internal/judge/inspect/pickle
ls "$out" | wc -l
