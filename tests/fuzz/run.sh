#!/bin/sh
# Fuzzes every reader: tests/fuzz/run.sh [seconds per reader, 60 by default] [reader ...]
# Needs clang++ with its compiler-rt (Debian: clang libclang-rt-dev), PCRE2 and nlohmann json; those that read into tensors need
# LibTorch, the one in .venv or under CIRCUIT_FUZZ_TORCH, and clang's omp.h (libomp-dev). Stops at the first finding.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
seconds=${1:-60}
[ $# -eq 0 ] || shift
build=${CIRCUIT_FUZZ_BUILD:-$here/../../build/fuzz}
mkdir -p "$build"
[ $# -gt 0 ] || set -- $(cd "$here" && ls ./*_fuzz.cpp | sed 's|^\./||; s|_fuzz\.cpp$||')
for reader in "$@"; do
  echo "== $reader"
  torch=
  if grep -q '<ATen/' "$here/${reader}_fuzz.cpp"; then
    at=${CIRCUIT_FUZZ_TORCH:-$(echo "$here"/../../.venv/lib/python3*/site-packages/torch)}
    torch="-isystem $at/include -L$at/lib -ltorch_cpu -lc10 -Wl,-rpath,$at/lib -DAT_PER_OPERATOR_HEADERS -fno-sanitize=vptr"
  fi
  # shellcheck disable=SC2086  # torch is several flags
  "${CXX:-clang++}" -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
    -I"$here/../../include" "$here/${reader}_fuzz.cpp" -o "$build/${reader}_fuzz" -lpcre2-8 $torch
  mkdir -p "$build/corpus/$reader"
  "$build/${reader}_fuzz" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_funcs=0 -verbosity=0 \
    -dict="$here/absurd.dict" "$build/corpus/$reader" "$here/corpus/$reader"
done
echo "no findings"
