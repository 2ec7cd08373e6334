#!/bin/sh
# Says plainly what is missing before anything is installed: check.sh PYTHON EXTRAS
set -eu
python=$1
extras=$2
missing=0

miss() {
  echo "error: $1" >&2
  missing=1
}

if ! command -v "$python" >/dev/null 2>&1; then
  miss "no $python: install Python 3.11 or later, or name it: make PYTHON=/path/to/python3.11 ..."
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  miss "$("$python" --version) is too old: install Python 3.11 or later, or name it: make PYTHON=..."
fi

# The order in which the build looks for a compiler.
compiler=
for candidate in "${CXX:-}" clang++ g++; do
  if [ -n "$candidate" ] && command -v "${candidate%% *}" >/dev/null 2>&1; then
    compiler=$candidate
    break
  fi
done
case " $extras " in *" compiler "*) compiler=${compiler:-ziglang} ;; esac
if [ -z "$compiler" ]; then
  miss "no C++ compiler: install g++ or clang++ (Debian, Ubuntu: apt install g++), or let pip install one: make EXTRAS=compiler ..."
fi
exit "$missing"
