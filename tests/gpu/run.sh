#!/usr/bin/env bash
# The project on a CUDA machine, in its own order:   bash tests/gpu/run.sh OUT [SECONDS=540]
#
# Every step has its own time limit and log in OUT; OUT/summary.txt gets a line per step. A failing step does not stop the
# rest; the exit status says whether one failed. The benches go on from what OUT holds. SMOKE=1: all of it at smoke size on
# a CPU, in about two minutes. PYTHON names the interpreter.
set -u
[ $# -ge 1 ] || { echo "usage: bash tests/gpu/run.sh OUT [SECONDS]" >&2; exit 2; }
mkdir -p "$1" && OUT=$(cd "$1" && pwd) || exit 2
LIMIT=${2:-540}
cd "$(dirname "$0")/../.." || exit 2
[ -n "${PYTHON:-}" ] || { [ -x .venv/bin/python ] && PYTHON=.venv/bin/python || PYTHON=python3; }
export SMOKE=${SMOKE:-} OUT PYTHONPATH=$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false UNSLOTH_DISABLE_STATISTICS=1
failed=0

step() {  # step NAME SECONDS COMMAND...: at most SECONDS, and no more than are left
  local name=$1 most=$2 began=$SECONDS left=$((LIMIT - SECONDS - 5)) rc last; shift 2
  [ "$most" -le "$left" ] || most=$left
  if [ "$most" -lt 10 ]; then rc="left out: no time"; last=; else
    ALLOWED=$most timeout -k 5 "$most" "$@" > "$OUT/$name.log" 2>&1
    rc=$?
    last=$(tr '\r' '\n' < "$OUT/$name.log" | grep -v '^ *$' | tail -n 1 | cut -c1-200)
    case $rc in 0) rc=ok ;; 124 | 137) rc="out of time" ;; *) rc="failed ($rc)" ;; esac
  fi
  [ "$rc" = ok ] || failed=1
  echo "$name: $rc, $((SECONDS - began)) s; $last" | tee -a "$OUT/summary.txt"
}

tests() {
  "$PYTHON" -m pytest "$1" -v --tb=short --durations=5 -p no:cacheprovider
  local rc=$?
  [ $rc = 5 ] && return 0  # nothing to run: no card here
  return $rc
}
training() {
  "$PYTHON" - <<'PY'
import os
import bench
small = {"shapes": ["smoke"], "arms": ["plain", "ours"], "repeats": 1} if os.environ["SMOKE"] else {}
print(bench.training(os.environ["OUT"], seconds=int(os.environ["ALLOWED"]) - 5, **small))
PY
}
generation() {
  "$PYTHON" - <<'PY'
import os
import bench
small = {"shape": "smoke", "prompts": 4, "new": 8} if os.environ["SMOKE"] else {}
print(bench.generation(os.environ["OUT"], seconds=int(os.environ["ALLOWED"]) - 5, **small))
PY
}
export PYTHON; export -f tests training generation

step doctor 30 "$PYTHON" -m reflectevo_lite.run.cli doctor
for file in tests/gpu/test_*.py; do
  step "$(basename "$file" .py)" 110 bash -c 'tests "$0"' "$file"
done
WITHOUT_UNSLOTH=1 step loop_plain 45 "$PYTHON" tests/gpu/loop.py
step loop 60 "$PYTHON" tests/gpu/loop.py
step training 170 bash -c training
step generation 120 bash -c generation
echo "total: $SECONDS s of $LIMIT" | tee -a "$OUT/summary.txt"
exit $failed
