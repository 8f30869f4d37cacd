#!/usr/bin/env bash
# Builds everything and runs all tests.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'TEXT'
usage: ./test.sh [--build-only] [--werror] [--help] [CTEST ARGUMENTS]

Installs what is missing (cmake/bootstrap.sh), builds library checks, tests, examples and benchmarks in release mode
under build/, compiles each header alone, runs all tests, and ends with ctest's summary.
  --build-only   build all, run nothing
  --werror       warnings are errors
Other arguments go to ctest: ./test.sh -R search
CIRCUIT_JOBS sets how many compilers and tests run at once (default: one per core, if there are 2 GB for each).
TEXT
}

build_only=no
werror=OFF
ctest_arguments=()
while (($#)); do
  case $1 in
    --build-only) build_only=yes ;;
    --werror) werror=ON ;;
    -h | --help) usage; exit 0 ;;
    *) ctest_arguments+=("$1") ;;
  esac
  shift
done

"$root/cmake/bootstrap.sh"
# shellcheck source=cmake/build.sh
source "$root/cmake/build.sh"
circuit_configure -DCIRCUIT_WERROR=$werror
circuit_build all all_verify_interface_header_sets
if [[ $build_only == yes ]]; then
  echo "test: built under build/; run the tests with ./test.sh or: ctest --test-dir build"
  exit 0
fi
echo "test: running the tests"
cd "$root/build"
ctest --output-on-failure --no-tests=error -j "$(circuit_jobs)" "${ctest_arguments[@]}"
