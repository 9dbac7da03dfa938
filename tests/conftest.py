"""Shared by the tests: the embedded model, loaded once, and a scripted stand-in where a model isn't the point."""

import os
import random
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing in the tests may reach for a network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.append(
    str(Path(__file__).parents[1] / "notebooks")
)  # tiny_model, in child processes that import this file too

import pytest
from tiny_model.corpus import reflection_text

from reflectevo_lite import prompts
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.generate.engines import Completion

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def engine():
    from reflectevo_lite.generate import engines, models

    return engines.TransformersEngine(models.load("tiny"))


@pytest.fixture(scope="session")
def unsloth():
    """(version, what PYTHONPATH has to hold) of an Unsloth that trains on a CPU, as it does from 2026.10.9 on.

    UNSLOTH_PATH may name a folder that it was installed to without its dependencies.
    """
    path = [os.environ["UNSLOTH_PATH"]] if "UNSLOTH_PATH" in os.environ else []
    probe = "import importlib.metadata as m; print(m.version('unsloth'))"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    version = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=env).stdout.strip()
    if not version or tuple(map(int, version.split(".")[:3])) < (2026, 10, 9):
        pytest.skip(f"needs unsloth >= 2026.10.9, found {version or 'none'}")
    return version, path


class ScriptedEngine:
    """Answers as the synthetic world's hasty solver, blames a random step, and redoes what a reflection blames."""

    name = "scripted"

    def __init__(self, problems):
        self.by_question = {prompts.answer_prompt(p)[0]["content"]: synthetic.to_task(p) for p in problems}
        self.calls = []

    def generate(self, conversations, *, n=1, temperature=0.0, max_new_tokens=512, seed=0, adapter=None):
        self.calls.append((len(conversations), seed))
        return [[Completion(text, len(text.split()), False)] for text in (self._one(c, seed) for c in conversations)]

    def _one(self, conversation, seed):
        rng = random.Random(f"{seed}/{conversation}")
        task = self.by_question[conversation[0]["content"]]
        if len(conversation) == 1:
            return task.hasty().text(task)
        attempt, asked = task.parse(conversation[1]["content"]), conversation[2]["content"]
        if prompts.RETRY_WITH_REFLECTION in asked:
            return task.retry(attempt, synthetic.blamed(asked)).text(task)
        if prompts.RETRY in asked:
            return attempt.text(task)
        place = rng.randint(1, len(attempt.ops))
        reflection = reflection_text(task, attempt, place, "context", "generic")
        if prompts.ONE_STAGE in asked:
            return prompts.join_one_stage(reflection, task.retry(attempt, place).text(task))
        return reflection


@pytest.fixture
def scripted():
    problems = synthetic.problems(60, "train", seed=3)
    return ScriptedEngine(problems), problems


def pytest_runtest_logreport(report):
    """A failure on a lent card is printed at once: the time may run out before the summary."""
    if report.failed and "tests/gpu" in report.nodeid:
        print(f"\n{report.nodeid} ({report.when})\n{report.longreprtext[-3000:]}", flush=True)
