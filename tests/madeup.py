"""A small made-up run in the real formats, written by the real stages over a scripted engine: no model is loaded."""

import json
import random

from conftest import ScriptedEngine
from tiny_model.corpus import reflection_text

from reflectevo_lite import curate, embedded, evaluate, generate, prompts, store
from reflectevo_lite.evaluate import Asked, Evaluation, Setting

HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=2</script>&lt;b&gt;\'"` </pre></div><style>*{display:none}</style>'

SETTINGS = (Setting("prompted"), Setting("reflector_only", reflector="x"))


class Teacher(ScriptedEngine):
    """Blames at random as the base model; with an adapter it mostly names a true mistake."""

    def generate(self, conversations, *, n=1, temperature=0.0, max_new_tokens=512, seed=0, adapter=None):
        texts = (self._reply(c, f"{seed}/{adapter}", adapter) for c in conversations)
        return [[generate.Completion(text, len(text.split()), False)] for text in texts]

    def _reply(self, conversation, seed, adapter):
        task = self.by_question[conversation[0]["content"]]
        asks = len(conversation) == 3 and prompts.RETRY not in conversation[2]["content"]
        if adapter and asks and random.Random(f"{seed}/{conversation}").random() < 0.8:
            attempt = task.parse(conversation[1]["content"])
            if attempt and (found := task.errors(attempt)):
                return reflection_text(task, attempt, found[0][0], found[0][1], "generic")
        return self._one(conversation, seed)


def make_run(directory, n=60, hostile=False, k=2):
    """A run directory with held-out questions under two settings and rollouts; with `hostile`, texts that attack."""
    test, train = embedded.problems(n, "test", seed=1), embedded.problems(n, "train", seed=1)
    engine, run = Teacher([*test, *train]), store.Run(directory)
    store.write_jsonl(run.path("data", "test.jsonl"), test)
    store.write_jsonl(run.path("data", "train.jsonl"), train)
    first = evaluate.first_turns(engine, test, run.path("evals", "turn1.jsonl"), max_new_tokens=96)
    asked = Asked(test, first, run.path("evals"), 96)
    for setting in SETTINGS:
        for mode in ("oracle", "intrinsic"):
            evaluate.evaluate(engine, asked, setting, Evaluation(setting.name, mode))
    generate.generate_rollouts(
        engine, train, run.path("rollouts", "train.jsonl"), k=k, instructions=prompts.POOL, temperature=1.0, max_new_tokens=96, chunk_size=n, seed=0
    )  # fmt: skip
    if hostile:
        make_hostile(run)
    return run


def add_later_stages(run):
    """What notebooks 02 to 06 add to `make_run`: curated sets, controls, a second round, metrics.json."""
    test, train, rolled = (
        run.read(*p) for p in (("data", "test.jsonl"), ("data", "train.jsonl"), ("rollouts", "train.jsonl"))
    )
    engine, asked = Teacher([*test, *train]), evaluate.held_out(run, max_new_tokens=96, seed=0)
    for control in ("retry", "shuffled"):
        for setting in SETTINGS:
            evaluate.evaluate(engine, asked, setting, Evaluation(setting.name, control=control))
    evaluate.evaluate(engine, asked, Setting("round_2", reflector="y"), turns=4)
    store.write_jsonl(run.path("curated", "d_plus.jsonl"), curate.d_plus(rolled))
    store.write_jsonl(run.path("curated", "d_pm.jsonl"), curate.d_pm(rolled))
    store.write_jsonl(run.path("rounds", "2", "rollouts.jsonl"), rolled)
    store.write_json(run.path("metrics.json"), evaluate.metrics(run.path("evals")))
    return run


def make_hostile(run):
    """Put markup and script into every text of every held-out question, and into an id."""
    for path in (run.path("data", "test.jsonl"), *run.path("evals").glob("*.jsonl")):
        rows = store.read_jsonl(path)
        for row in rows:
            for name in ("question", "answer", "completion", "turn1", "turn2", "reflection"):
                if isinstance(row.get(name), str):
                    row[name] += HOSTILE
        if "id" in rows[0]:
            rows[0]["id"] = HOSTILE
        store.write_jsonl(path, rows)


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def eval_row(problem, first, second, tokens=40):
    row = {"id": problem["id"], "task": problem["task"], "turn1_correct": first, "turn2_correct": second}
    return row | {"reflection": None, "turn2": None, "tokens": tokens}
