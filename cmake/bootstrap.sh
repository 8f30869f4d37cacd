#!/usr/bin/env bash
# Installs what building needs and this machine lacks, and nothing else. test.sh and demo.sh call it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=venv.sh
source "$root/cmake/venv.sh"

usage() {
  cat <<'TEXT'
usage: cmake/bootstrap.sh [--torch any|wheel|debian] [--check] [--help]

Installs the Debian packages that are missing (as root or through sudo) and a LibTorch where none is found.
  --torch any     any LibTorch 1.13 or newer will do (the default): Torch_DIR, CMAKE_PREFIX_PATH, the torch of python3
                  or of .venv, Debian's libtorch-dev; if there is none, torch 2.13.0 goes into .venv here
  --torch wheel   a Python torch, whatever else is there
  --torch debian  Debian's libtorch-dev (1.13.1), whatever else is there
  --check         only say what is missing; exit 1 if anything is
TEXT
}

torch=any
check=no
while (($#)); do
  case $1 in
    --torch) torch=${2:?--torch needs any, wheel or debian}; shift ;;
    --check) check=yes ;;
    -h | --help) usage; exit 0 ;;
    *) echo "bootstrap: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
case $torch in any | wheel | debian) ;; *) usage >&2; exit 2 ;; esac

say() { printf 'bootstrap: %s\n' "$*"; }
have_header() { [[ -e /usr/include/$1 || -e /usr/local/include/$1 ]]; }
architecture=$(gcc -print-multiarch 2>/dev/null || true)

# ---- Packages ------------------------------------------------------------------------------------------------------
packages=()
compiler=${CXX:-c++}
command -v "${compiler%% *}" >/dev/null || packages+=(g++)
command -v cmake >/dev/null || packages+=(cmake)
command -v ninja >/dev/null || packages+=(ninja-build)
have_header boost/graph/adjacency_list.hpp || packages+=(libboost-graph-dev)
have_header xtensor/xtensor.hpp || have_header xtensor/containers/xtensor.hpp || packages+=(libxtensor-dev)
have_header nlohmann/json.hpp || packages+=(nlohmann-json3-dev)
have_header CLI/CLI.hpp || packages+=(libcli11-dev)
have_header catch2/catch.hpp || have_header catch2/catch_all.hpp || packages+=(catch2)
have_header pcre2.h || packages+=(libpcre2-dev)

# ---- LibTorch ------------------------------------------------------------------------------------------------------
# Whether CMake will take this prefix: headers and libraries, 1.13 or newer, with the C++11 ABI.
usable_torch() {
  local folder=$1 header major minor
  [[ -n $folder && -e $folder/include/ATen/core/Tensor.h && -e $folder/lib/libtorch_cpu.so ]] || return 1
  for header in "$folder/include/torch/headeronly/version.h" "$folder/include/torch/csrc/api/include/torch/version.h"; do
    [[ -e $header ]] || continue
    major=$(awk '$2 == "TORCH_VERSION_MAJOR" {print $3}' "$header")
    minor=$(awk '$2 == "TORCH_VERSION_MINOR" {print $3}' "$header")
    if [[ -n $major && -n $minor ]]; then break; fi
  done
  ((${major:-0} > 1 || (${major:-0} == 1 && ${minor:-0} >= 13))) || return 1
  ! grep -q '_GLIBCXX_USE_CXX11_ABI=0' "$folder/share/cmake/Torch/TorchConfig.cmake" 2>/dev/null
}
# A Python's torch, without importing it.
torch_of() {
  local folder
  folder=$("$1" -c "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')" 2>/dev/null) || return 1
  usable_torch "$folder"
}
python=$(command -v python3 || true)
has_wheel() { { [[ -n $python ]] && torch_of "$python"; } || { [[ -x $root/.venv/bin/python ]] && torch_of "$root/.venv/bin/python"; }; }
has_debian() { [[ -e /usr/include/ATen/core/Tensor.h && -e /usr/lib/${architecture:-x86_64-linux-gnu}/libtorch_cpu.so ]]; }

# Another program's prefix path holds no LibTorch.
names_torch() {
  [[ -n ${Torch_DIR:-} ]] && return 0
  local prefix prefixes
  IFS=: read -ra prefixes <<<"${CMAKE_PREFIX_PATH:-}"
  for prefix in "${prefixes[@]}"; do
    [[ -e ${prefix%/share/cmake*}/include/ATen ]] && return 0
  done
  return 1
}

want_wheel=no
case $torch in
  debian)
    has_debian || packages+=(libtorch-dev)
    # Only recommended by libtorch, but nothing starts without a BLAS that has LAPACK in it.
    dpkg -s libopenblas0-pthread >/dev/null 2>&1 || packages+=(libopenblas0-pthread)
    ;;
  wheel) has_wheel || want_wheel=yes ;;
  any)
    if ! names_torch && ! has_wheel && ! has_debian; then want_wheel=yes; fi
    ;;
esac
if [[ $want_wheel == yes ]] && ! venv_works "$root/.venv"; then
  # Debian splits what `python3 -m venv` needs into a package of its own.
  if [[ -z $python ]] || ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then packages+=(python3-venv); fi
fi

if [[ $check == yes ]]; then
  ((${#packages[@]})) && say "missing packages: ${packages[*]}"
  [[ $want_wheel == yes ]] && say "missing: a LibTorch"
  [[ ${#packages[@]} == 0 && $want_wheel == no ]]
  exit
fi
if ((${#packages[@]} == 0)) && [[ $want_wheel == no ]]; then exit 0; fi

as_root=()
if ((${#packages[@]})) && [[ $(id -u) != 0 ]]; then
  # Without root there is no installing, but those that are headers alone CMake fetches.
  needed=$(printf '%s\n' "${packages[@]}" | grep -vxE 'libxtensor-dev|nlohmann-json3-dev|libcli11-dev|catch2' || true)
  if command -v sudo >/dev/null; then
    as_root=(sudo)
  elif [[ -n $needed ]]; then
    say "please run as root: apt-get update && apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 1
  else
    say "not root: CMake will fetch what these packages hold: ${packages[*]}"
    packages=()
  fi
fi
if ((${#packages[@]})); then
  if ! command -v apt-get >/dev/null; then
    say "this machine has no apt-get; please install what these Debian packages hold: ${packages[*]}" >&2
    exit 1
  fi
  say "installing ${packages[*]}"
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
           apt-get install -y --no-install-recommends "${packages[@]}"; } </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "apt-get failed; its whole output: $log" >&2
    exit 1
  fi
  rm -f "$log"
fi

if [[ $want_wheel == yes ]]; then
  python=$(command -v python3)
  venv_works "$root/.venv" || say "making a virtual environment in .venv"
  "$python" -c 'import ensurepip, venv' 2>/dev/null || python=/usr/bin/python3  # where apt-get has just put both
  make_venv "$root/.venv" "$python"
  say "installing torch 2.13.0 into .venv (some minutes)"
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input torch==2.13.0
fi
say "done"
