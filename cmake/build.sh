# Sourced by test.sh and demo.sh: configures and builds the release preset in build/, quietly where nothing changed.
circuit_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# One job per core, but two gigabytes of memory for each: files that parse ATen need up to 1.5.
circuit_jobs() {
  local cores memory
  cores=$(nproc 2>/dev/null || echo 1)
  memory=$(awk '/MemAvailable/ {print int($2 / 2000000)}' /proc/meminfo 2>/dev/null || echo "$cores")
  ((memory < 1)) && memory=1
  echo "${CIRCUIT_JOBS:-$((cores < memory ? cores : memory))}"
}

# A build folder copied or moved from elsewhere names files that are not there; it is of no use to anybody.
circuit_configure() {
  local cache=$circuit_root/build/CMakeCache.txt log
  if [[ -e $cache ]] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$circuit_root" "$cache"; then
    echo "build: build/ belongs to another folder; starting it anew"
    rm -rf "$circuit_root/build"
  fi
  [[ -e $cache ]] || echo "build: configuring"
  log=$(mktemp)
  # Spelled out, since a build folder may have been configured with less.
  local all=(-DCIRCUIT_COMPONENTS=circuit -DCIRCUIT_TESTS=ON -DCIRCUIT_EXAMPLES=ON -DCIRCUIT_BENCHMARKS=ON)
  if ! (cd "$circuit_root" && cmake --preset release "${all[@]}" "$@") >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  grep -E "LibTorch [0-9]|fetching" "$log" || true
  rm -f "$log"
}

circuit_build() {  # <targets>...
  echo "build: building $*"
  cmake --build "$circuit_root/build" -j "$(circuit_jobs)" --target "$@"
}
