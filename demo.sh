#!/usr/bin/env bash
# The main job on the embedded model: finds the circuit, ablates it, writes the page and the charts.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'TEXT'
usage: ./demo.sh [--json FILE] [--help] [FLAGS OF examples/ioi]

Installs what is missing (cmake/bootstrap.sh), builds the example `ioi` in release mode under build/, runs it on the
model in examples/data and writes the graph page and the charts under out/ (--out FOLDER: elsewhere). Ends with a summary.
  --json FILE    every figure as JSON
Relative paths are taken from where you are. Flags of the example itself: build/examples/ioi --help
TEXT
}

out=("--out" "$root/out")
for argument in "$@"; do
  case $argument in
    -h | --help) usage; exit 0 ;;
    --out | --out=*) out=() ;;
  esac
done

"$root/cmake/bootstrap.sh"
# shellcheck source=cmake/build.sh
source "$root/cmake/build.sh"
circuit_configure
circuit_build ioi
echo "demo: running examples/ioi"
exec "$root/build/examples/ioi" "${out[@]}" "$@"
