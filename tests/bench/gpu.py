"""The card's tables: training steps (plain TRL + PEFT against this package's path) and generation, at real models' shapes.

Every measurement is a process of its own (`child`), since Unsloth changes trl for the whole process. It has a time limit
and a log in `<out>/logs/`. Tables are written anew after every measurement; the same command goes on from there."""

import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import reflectevo_lite
from reflectevo_lite import store

from .child import ARMS, RANK, WARM_UP
from .table import COMPARISON, lines, write

SHAPES = ("Qwen3-1.7B", "Llama-3-8B")
LONGEST, LEAST = 170, 20  # seconds for one process; with less left, none is begun
FOUR_BITS = ("plain, 4 bits", "ours, 4 bits")
ORDER = [*itertools.product(("sft", "dpo"), ("plain", "ours", *FOUR_BITS))]
ORDER += [("sft", "ours, packed"), ("sft", "ours, padding-free")]
TRAINING = "model's shape | objective | arm | tokens/s | × plain | peak GiB | × plain | of bf16 peak | repeats"
NAMES = ("shape", "kind", "arm", "repeat")  # what tells one training measurement from another
Words = Sequence[str]
Job = tuple[str, dict[str, Any], float]  # what the child does, with which options, its limit in seconds


def training(
    out: str | Path, *, seconds: float, shapes: Words = SHAPES, arms: Words = tuple(ARMS), repeats: int = 3
) -> str:
    """Measure every shape, objective and arm, write gpu_training.json and .md to `out`, and return the table. An arm
    that fails is kept with its error, and measured again the next time. Four bits need bitsandbytes and a card."""
    path, settings = Path(out) / "gpu_training", {"warm_up": WARM_UP, "lora_r": RANK}
    four_bits = _card() and importlib.util.find_spec("bitsandbytes")
    arms = [arm for arm in arms if four_bits or arm not in FOUR_BITS]
    rows = [row for row in _known(path, settings) if "error" not in row]
    note = "Training steps on random weights; medians over the repeats."
    save = lambda: write(path, TRAINING, training_lines(rows), note, {"settings": settings, "rows": rows})
    done = [tuple(row[name] for name in NAMES) for row in rows]
    todo = [(shape, *what, i) for i in range(repeats) for shape in shapes for what in ORDER if what[1] in arms]
    with tempfile.TemporaryDirectory() as place:  # 20 GB of models: not in `out`, which is kept
        jobs: list[Job] = []
        for options in (dict(zip(NAMES, what, strict=True)) for what in todo if what not in done):
            where = {"shape": options["shape"], "folder": f"{place}/{options['shape']}"}
            make: Job = ("make_model", where, LONGEST)
            jobs += [make] * (make not in jobs) + [("train_steps", options | where, LONGEST)]
        for (what, options, _), found in _measure(jobs, path.with_name("logs"), seconds):
            if what == "train_steps":
                rows.append({name: options[name] for name in NAMES} | found)
                save()
    return save()


def training_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The training table: medians over the repeats, ratios to the plain arm of as many bits."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["shape"], row["kind"], row["arm"]), []).append(row)
    known = lambda key, name: [row[name] for row in groups.get(key, []) if row.get(name)]
    median = lambda key, name: statistics.median(known(key, name) or [float("nan")])
    found = []
    for (shape, kind, arm), runs in groups.items():
        own, plain = (shape, kind, arm), (shape, kind, "plain, 4 bits" if arm in FOUR_BITS else "plain")
        errors = [f" (failed: {row['error']})" for row in runs if "error" in row]
        rate, peak, share = (median(own, name) for name in ("tokens_per_s", "peak_gib", "share_of_peak"))
        faster, larger = rate / median(plain, "tokens_per_s"), peak / median(plain, "peak_gib")
        figures = f"{rate:,.0f}|{faster:.2f}|{peak:.1f}|{larger:.2f}|{share:.1%}|{len(runs) - len(errors)}".split("|")
        arm += "".join(errors[:1]).replace("|", "/")  # a bar would end the cell
        found.append(" | ".join([shape, kind.upper(), arm, *("–" if "nan" in f else f for f in figures)]))
    return found


def generation(out: str | Path, *, seconds: float, shape: str = SHAPES[0], prompts: int = 256, new: int = 128) -> str:
    """Greedy generation of `new` tokens for each of `prompts` prompts, in batches, against one prompt at a time. Writes
    generation.json and .md to `out` and returns the table. transformers' own `generate` in batches comes last."""
    path, settings = Path(out) / "generation", {"shape": shape, "prompts": prompts, "new_tokens": new}
    rows, failed = _known(path, settings), {}
    note = f"Generation on random weights of {shape}'s shape."
    save = lambda: write(path, COMPARISON, lines(rows), note, {"settings": settings, "rows": rows, "failed": failed})
    asked = [{"batching": "padded", "rounds": 2} | settings, {"batching": "generate", "rounds": 1} | settings]
    measured = [row["batching"] for row in rows]
    jobs: list[Job] = [("answer", how, seconds / 2) for how in asked if how["batching"] not in measured]
    for (_, options, _), found in _measure(jobs, path.with_name("logs"), seconds):
        if "error" in found:
            failed[options["batching"]] = found["error"]
        else:
            rows.append(found)
        save()
    return save()


def _card() -> str | None:
    return store.environment()["gpu"]


def _known(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Earlier measurements. Raises ValueError if they are another card's, or were made with other settings."""
    file, card = path.with_suffix(".json"), _card()
    known = json.loads(file.read_bytes()) if file.exists() else {"environment": {"gpu": card}, "settings": settings}
    if (known.get("environment", {}).get("gpu"), known["settings"]) != (card, settings):
        raise ValueError(f"{file} holds figures of another card or other settings: choose another --out")
    return known.get("rows", [])


class Child:
    """A process that gets ready at once and measures when told to."""

    def __init__(self, job: Job, log: Path, result: Path) -> None:
        self.log, self.result = log, result
        code = f"from {__package__} import child; child.main()"
        command = [sys.executable, "-c", code, job[0], json.dumps(job[1]), str(result)]
        here = [Path(__file__).parents[1], Path(reflectevo_lite.__file__).parents[1]]  # wherever the package lies
        places = [*map(str, here), os.environ.get("PYTHONPATH", "")]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as output:  # a library that writes beside itself writes into `cwd`
            pipes = {"stdin": subprocess.PIPE, "stdout": output, "stderr": output}
            self.process = subprocess.Popen(command, env=env, cwd=result.parent, **pipes)

    def measure(self, seconds: float) -> dict[str, Any]:
        """What was measured, or the error; the process is ended after `seconds`."""
        try:
            self.process.communicate(b"go\n", timeout=seconds)
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            error = (lines or [f"exit status {self.process.returncode}"])[-1][:300]
        except subprocess.TimeoutExpired:
            error = f"stopped after {seconds:.0f} s"
        finally:
            self.close()
        return json.loads(self.result.read_bytes()) if self.result.exists() else {"error": error}

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def _measure(jobs: Sequence[Job], logs: Path, seconds: float) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Each job with what it found, in order, as far as `seconds` reach."""
    end, children = time.monotonic() + seconds, []
    with tempfile.TemporaryDirectory() as place:
        try:
            for i, job in enumerate(jobs):
                if (left := end - time.monotonic()) < LEAST:
                    print(f"{len(jobs) - i} measurements are left for the next time", flush=True)
                    return
                for j in range(len(children), min(i + 2, len(jobs))):
                    what, options, _ = jobs[j]
                    words = [what, *(str(options[name]) for name in (*NAMES, "batching") if name in options)]
                    log = logs / ("-".join(words).replace(",", "").replace(" ", "-") + ".log")
                    children.append(Child(jobs[j], log, Path(place) / f"{j}.json"))
                found = children[i].measure(min(job[2], left))
                print(f"{children[i].log.stem}: {found}", flush=True)
                yield job, found
        finally:
            for child in children:
                child.close()
