#!/bin/sh
# Installs the project and its tests into a virtual environment: sh install.sh [VENV] (default .venv), what `make` calls.
#
# torch's wheels fit the machine: with an NVIDIA card those of PyPI, which bring CUDA, and the `gpu` extra (Unsloth,
# bitsandbytes); on Linux without one the CPU wheels, which save gigabytes. Say otherwise with
#   TORCH_INDEX=URL   take torch from this index, EXTRAS=test,gpu   install these extras
set -eu
venv=${1:-.venv} python=${PYTHON:-python3} cpu=https://download.pytorch.org/whl/cpu

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; choose one with PYTHON=…")'
"$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check --quiet"

if nvidia-smi -L 2>/dev/null | grep -q GPU; then
    extras=${EXTRAS:-test,gpu} index=${TORCH_INDEX:-} why="an NVIDIA card is here: torch with CUDA"
elif [ -n "${TORCH_INDEX:-}" ] || [ "$(uname -s)" != Linux ]; then
    extras=${EXTRAS:-test} index=${TORCH_INDEX:-} why="no NVIDIA card is here: torch as ${TORCH_INDEX:-PyPI} has it"
elif $pip install --dry-run --no-deps --ignore-installed -c constraints.txt --report - torch 2>/dev/null | grep -q '"version": "[^"]*+cpu"'; then
    # the index that pip is set up with serves them by itself: no other one is asked
    extras=${EXTRAS:-test} index="" why="no NVIDIA card is here: torch's CPU wheels, from pip's own index"
else
    extras=${EXTRAS:-test} index=$cpu why="no NVIDIA card is here: torch's CPU wheels"
fi
echo "install.sh: $why; extras: $extras (otherwise: TORCH_INDEX=URL, EXTRAS=NAMES)"
$pip install ${index:+--extra-index-url "$index"} -c constraints.txt -e ".[$extras]"
