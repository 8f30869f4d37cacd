# Sourced by bootstrap.sh and demo.sh: the project's own virtual environment.

# A folder that was moved, or whose Python is gone, still has an executable pip, which does not run.
venv_works() { "$1/bin/python" -m pip --version >/dev/null 2>&1; }

# Makes one where none works. What is installed there stays, unless its Python is gone, so that nothing of it runs.
make_venv() {  # <folder> <python>
  if venv_works "$1"; then return; fi
  local clear=()
  if [[ -d $1 ]] && ! "$1/bin/python" -c '' 2>/dev/null; then clear=(--clear); fi
  "$2" -m venv "${clear[@]}" "$1"
}
