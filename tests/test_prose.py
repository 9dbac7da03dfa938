"""What README, notebooks and solutions say of the reference run follows from its metrics.json and rows (`claims.py`)."""

import json
import re
import statistics

import pytest
from claims import CLAIMS, EXCEPTIONS, SECTIONS
from conftest import ROOT
from solutions import reference

from notebooks.beyond import ladder, words
from reflectevo_lite import embedded, evaluate, prompts, read
from reflectevo_lite.read import figures

NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)? ?%|\b\d[\d,]*\.\d+\b|\b\d[\d,]* of [\d,]*\d|\d points")


def prose(path):
    """The text that a person reads, on one line: no code, formulas, addresses; − as -."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    else:
        parts = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.M)
        text = "## ".join(part for part in parts if not part.startswith(SECTIONS))
    for left_out in (
        r"^```.*?^```",
        r"\$\$.*?\$\$",
        r"\$[^$\n]+\$",
        r"\]\([^)]*\)",
        r"arXiv [\d.]+",
        r"[Ee]xercise \d\.\d",
    ):
        text = re.sub(left_out, " ", text, flags=re.S | re.M)
    return re.sub(r"\s+", " ", text).replace("−", "-")


class Run:
    """What the claims may ask for; every figure as the text that should stand in the prose."""

    def __init__(self, run):
        self.run, self.notebook, self.metrics = run, "", read.load_metrics(run)
        self.wrongs = [r for r in run.read("rollouts", "train.jsonl") if r["reflections"]]

    def row(self, stem):
        setting, mode, control = (
            (*stem.split("."), "oracle", None)[:3] if "." not in stem else (*stem.split("."), None)[:3]
        )
        return next(r for r in self.metrics["rows"] if (r["setting"], r["mode"], r["control"], r["task"]) == (setting, mode, control, "all"))  # fmt: skip

    def comparison(self, a, b):
        return next(c for c in self.metrics["comparisons"] if (c["a"], c["b"]) == (f"{a}.oracle", f"{b}.oracle"))

    def evals(self, stem):
        return self.run.read("evals", f"{stem if '.' in stem else stem + '.oracle'}.jsonl")

    def percent(self, share, digits=1):
        return f"{100 * share:.{digits}f}"

    # -- metrics.json
    def n(self):
        return f"{self.row('prompted')['n']:,}"

    def first(self, stem):
        return self.percent(self.row(stem)["acc_t1"])

    def acc(self, stem):
        return self.percent(self.row(stem)["acc_t2"])

    def gain(self, a, b, sign="+"):
        points = 100 * (self.row(a)["acc_t2"] - self.row(b)["acc_t2"])
        return f"{points:{sign}.1f}"

    def interval(self, a, b):
        return " to ".join(self.percent(bound) for bound in self.comparison(a, b)["ci"])

    def sure(self, a, b):
        assert self.comparison(a, b)["significant"]
        return self.gain(a, b)

    def flipped(self, stem, kind):
        return self.row(stem)["flips"][kind]

    def mended(self, *stems):
        return sum(self.flipped(stem, "ic") for stem in stems)

    def mends(self, stem, digits=1):
        return self.percent(self.mended(stem) / (self.mended(stem) + self.flipped(stem, "ii")), digits)

    def wrong(self, times=1):
        return f"{times * (self.mended('prompted') + self.flipped('prompted', 'ii')):,}"

    def right(self):
        return self.flipped("prompted", "cc")

    def broken(self, setting):
        flips = self.row(f"{setting}.intrinsic")["flips"]
        return self.percent(flips["ci"] / (flips["ci"] + flips["cc"]))

    def carried(self, trained, tested):
        [row] = [r for r in self.metrics["transfer"] if (r["trained on"], r["tested on"]) == (trained, tested)]
        return f"{100 * row['difference']:+.1f}"

    def seeds(self):
        others = sorted((ROOT / "artifacts" / "reference" / "seeds").glob("*.json"))
        return [json.loads(p.read_text(encoding="utf-8")) for p in others]

    def truth_over_seeds(self, setting):
        label = evaluate.label(setting)
        found = [100 * r["whole"] for m in (self.metrics, *self.seeds()) for r in m["truth"] if r["setting"] == label]
        assert len(found) == 1 + len(self.seeds())
        return f"{min(found):.1f} to {max(found):.1f}"

    def over_seeds(self, a, b):
        gains = [100 * (self.row(a)["acc_t2"] - self.row(b)["acc_t2"])]
        for metrics in self.seeds():
            acc = {r["setting"]: r["acc_t2"] for r in metrics["rows"] if (r["mode"], r["control"], r["task"]) == ("oracle", None, "all")}  # fmt: skip
            gains.append(100 * (acc[a] - acc[b]))
        half = {5: 2.776445}[len(gains)] * statistics.stdev(gains) / len(gains) ** 0.5  # Student's t, 97.5 %
        return f"{statistics.fmean(gains) - half:.1f} to {statistics.fmean(gains) + half:.1f}"

    def rung(self, name):
        [row] = [r for r in self.metrics["ladder"] if r["prompt"] == ladder.RUNGS[name]]
        return self.percent(row["acc_t2"])

    def guess(self, how):
        return self.percent(self.metrics["elimination"][0][how])

    def choice(self, setting):
        [row] = [r for r in self.metrics["elimination"] if r["setting"] == evaluate.label(setting)]
        return self.percent(row["acc_t2"])

    def truth(self, setting):
        [row] = [r for r in self.metrics["truth"] if r["setting"] == evaluate.label(setting)]
        return self.percent(row["whole"])

    def edit(self, name, column="mended"):
        [row] = [r for r in self.metrics["words"] if r["edit"] == words.EDITS[name][0]]
        return self.percent(row[column])

    def injected(self, setting, column="named"):
        [row] = [r for r in self.metrics["injected"] if r["setting"] == evaluate.label(setting)]
        return row["n"] if column == "n" else self.percent(row[column])

    def verifier(self, name, column):
        [row] = [r for r in self.metrics["verifier"] if r["verifier"].startswith(name)]
        return f"{row[column]:.2f}" if column == "auroc" else self.percent(row[column])

    def first_turn(self, adapter, column="acc_t1"):
        [row] = [r for r in self.metrics["first"] if r["adapter"] == evaluate.TRAININGS[adapter].label]
        return self.percent(row[column])

    # -- rows
    def rows(self, curated):
        return len(self.run.read("curated", f"{curated}.jsonl"))

    def accused(self, setting, right=True):
        told = [r["reflection"] for r in self.evals(f"{setting}.intrinsic") if r["turn1_correct"] == right]
        return self.percent(sum(embedded.blamed(text) is not None for text in told) / len(told))

    def words(self, stem):
        return f"{statistics.fmean(len(r['reflection'].split()) for r in self.evals(stem) if r['reflection']):.1f}"

    def solves(self, stem):
        return f"{sum(r['turn2_correct'] for r in self.evals(stem)):,}"

    def share(self, wanted):
        """Of the sampled reflections that `wanted(rollout, reflection)` takes, the share that helped, in percent."""
        found = [x["turn2"]["correct"] for r in self.wrongs for x in r["reflections"] if wanted(r, x)]
        return self.percent(sum(found) / len(found))

    def helped(self):
        return self.share(lambda r, x: True)

    def verify(self, way):
        return self.share(lambda r, x: x["instruction"][0] == way)

    def aimed(self, match):
        errors = {r["id"]: embedded.diagnose(r["problem"], r["turn1"]["completion"]) for r in self.wrongs}
        return self.share(lambda r, x: errors[r["id"]] and (prompts.aspect(x["instruction"]) == errors[r["id"]][0][1]) == match)  # fmt: skip

    def by_place(self, helped):
        hits = []
        for r in self.wrongs:
            places = [place for place, _ in embedded.diagnose(r["problem"], r["turn1"]["completion"]) or []]
            hits += [embedded.blamed(x["text"]) in places for x in r["reflections"] if x["turn2"]["correct"] == helped]
        return sum(hits) / len(hits)

    def true_place(self, helped):
        return self.percent(self.by_place(helped))

    def best_of(self, j):
        return self.percent(statistics.fmean(any(x["turn2"]["correct"] for x in r["reflections"][:j]) for r in self.wrongs))  # fmt: skip

    def last_batch(self, training, size=32):
        return len(self.run.read("curated", f"{training.replace('dpo_', 'd_')}.jsonl")) % size

    # -- what an executed notebook printed or showed
    def shown(self, stage, pattern, times=None, digits=0):
        found = re.search(pattern, outputs(self.run.path("notebooks", f"{stage}.ipynb")))[1]
        return found if times is None else f"{times * float(found):.{digits}f}"

    def out(self, pattern, times=None):
        found = re.search(pattern, outputs(ROOT / self.notebook))[1]
        return found if times is None else f"{times * float(found):.1f}"


def outputs(path):
    """What a notebook printed, and its tables without markup."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = [o for c in cells for o in c.get("outputs", [])]
    texts = ["".join(o.get("text", "")) for o in found] + [
        re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]+>", " ", "".join(o.get("data", {}).get("text/html", "")), flags=re.S))
        for o in found
    ]  # fmt: skip
    return "\n".join(texts)


def said(facts, notebook, template):
    facts.notebook = notebook
    allowed = {name: getattr(facts, name) for name in dir(facts) if not name.startswith("_")}
    return re.sub(r"\{([^{}]+)\}", lambda found: str(eval(found[1], allowed)), template)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return reference(tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module")
def facts(run):
    return Run(run)


@pytest.fixture(scope="module")
def claims(facts):
    return [(file, said(facts, file, template)) for file, template in CLAIMS]


def untrue(claims):
    """Claims that do not stand in their files as the run would have them."""
    texts = {file: prose(ROOT / file) for file, _ in claims}
    return [f"{file}: {want}" for file, want in claims if want not in texts[file]]


def test_every_claim_is_what_the_run_says(claims):
    assert not untrue(claims), "write what the run says"


def test_a_changed_figure_of_the_run_or_of_the_prose_is_noticed(facts, claims):
    other = Run(facts.run)
    for row in other.metrics["rows"]:
        row["acc_t2"] += 0.002 * (row["setting"] == "round_3")
    found = untrue([(file, said(other, file, template)) for file, template in CLAIMS[:6]])
    assert len(found) == 1 and "86.2 % after two more rounds" in found[0]
    text, want = prose(ROOT / "README.md"), claims[4][1]
    assert want in text and want not in text.replace("82.0 %", "82.4 %")


def test_the_page_of_evidence_is_its_template_filled_by_the_run(facts):
    want = said(facts, "", (ROOT / "tests" / "evidence.md.in").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8") == want, "run python tests/fill_evidence.py"


FILES = ["README.md", "docs/teaching.md"] + [str(p.relative_to(ROOT)) for p in sorted((ROOT / "notebooks").rglob("*.ipynb"))]  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_no_number_of_results_stands_in_the_prose_unchecked(claims, file):
    text = prose(ROOT / file)
    for phrase in [*(want for name, want in claims if name == file), *EXCEPTIONS]:
        text = text.replace(phrase, " ")
    left = [text[max(0, m.start() - 40) : m.end() + 20] for m in NUMBER.finditer(text)]
    assert not left, "a sentence in tests/claims.py should say where these come from"


def test_examples_shown_of_a_set_are_true_and_the_short_figure_ends_with_its_best(run, facts):
    for name, column in (("d_plus", "reflection"), ("d_pm", "chosen")):
        [row] = evaluate.first_true(run.read("curated", f"{name}.jsonl"), column)
        assert embedded.truth(row["problem"], row["turn1"]["completion"], row[column]["text"]).whole
    few, best = read.headline_rows(facts.metrics)
    drawn = {tick.get_text(): tick.get_color() for tick in figures.accuracy(few, best).axes[0].get_yticklabels()}
    assert 10 <= len(drawn) <= 12 and few["Acc@t2"].is_monotonic_increasing
    grey = {"shuffled reflections", "reflector SFT (unfiltered)", "SFT on second answers, no reflection"}
    assert {name for name, colour in drawn.items() if colour == "0.5"} == grey


def test_links_of_the_executed_notebooks_lead_somewhere():
    for path in sorted((ROOT / "artifacts" / "reference" / "tiny_cpu" / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
        assert not [link for link in links if not (path.parent / link).exists()], path.name
