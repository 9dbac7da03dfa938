"""Tables from a run's files, as data frames. Nothing here runs a model."""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import embedded, evaluate, prompts, store
from ..evaluate import Evaluation
from .explorer import Transcripts

Row = dict[str, Any]
Evals = Mapping[str, Sequence[Row]]  # eval rows by setting

BASE = Evaluation(evaluate.BASELINE)
DIFFERENCE = ("setting", "difference", "low", "high", "p (McNemar)", "p (Holm)", "significant", "detectable", "n")
# what reflections tell oneself to do; a text's first one is its pattern
VERBS = Path(__file__).with_name("verbs.txt").read_text(encoding="utf-8").split()
_VERB = re.compile(rf"\b({'|'.join(VERBS)})\b", re.IGNORECASE)


def load_metrics(run: store.Run | Path) -> Row:
    """The metrics.json of a run, or the file itself. Raises FileNotFoundError naming the notebook that writes it."""
    path = run if isinstance(run, Path) else run.path("metrics.json")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run notebook 06_analysis first")
    return store.read_json(path)


def _rows(metrics: Row, mode: str | None = None) -> dict[Evaluation, Row]:
    """Rows of metrics.json over all tasks in the table's order; without a mode, of both."""
    rows = {Evaluation(r["setting"], r["mode"], r["control"]): r for r in metrics["rows"] if r["task"] == "all"}
    return {e: rows[e] for e in sorted(rows, key=lambda e: e.order) if mode in (None, e.mode)}


def _percent(value: float, bounds: Sequence[float]) -> list[float]:
    return [100 * x for x in (value, *bounds)]


def results(metrics: Row, *, mode: str = "oracle") -> pd.DataFrame:
    """The results table in the paper's form, one row per setting: rates and Δ in percent, the four flips. `key` is the
    eval file's stem, `tokens per question` counts what follows turn 1."""
    columns = ["key", "setting", "Acc@t1", "Acc@t2", "Δ", "Δ low", "Δ high", "c→c", "c→i", "i→c", "i→i"]
    rows = []
    for e, r in _rows(metrics, mode).items():
        rates = (100 * r["acc_t1"], 100 * r["acc_t2"], *_percent(r["delta"], r["delta_ci"]))
        flips = (r["flips"][kind] for kind in ("cc", "ci", "ic", "ii"))
        cost = (r["tokens"] / max(1, r["n"]), r["n"])
        rows.append((e.stem, evaluate.label(e.setting, e.control), *rates, *flips, *cost))
    return pd.DataFrame(rows, columns=[*columns, "tokens per question", "n"]) if rows else pd.DataFrame()


def headline_rows(metrics: Row) -> tuple[pd.DataFrame, dict[str, float | None]]:
    """The rows of `results` that tell the story, from the lowest Acc@t2 up, and what the best prompt of the ladder gets
    out of the untrained model (a fraction; None if it was not climbed): what `figures.accuracy` draws."""
    table, best = results(metrics), max((r["acc_t2"] for r in metrics.get("ladder", ())), default=None)
    rows = table[[Evaluation.parse(key).headline for key in table["key"]]].sort_values("Acc@t2", kind="stable")
    return rows, {"best prompt, untrained": best}


def with_intervals(metrics: Row, *, mode: str = "oracle") -> pd.DataFrame:
    """`results` for reading: every rate with its 95 % interval beside it, as text."""
    table = results(metrics, mode=mode).drop(columns=["key", "Δ low", "Δ high"], errors="ignore")
    for column, name, sign in (("Acc@t1", "acc_t1", ""), ("Acc@t2", "acc_t2", ""), ("Δ", "delta", "+")):
        values = [_percent(r[name], r[f"{name}_ci"]) for r in _rows(metrics, mode).values()]
        table[column] = [f"{v:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]" for v, low, high in values]
    return table.round({"tokens per question": 1})


def styled(table: pd.DataFrame) -> Any:
    """A results table (pandas Styler) as a notebook shows it: one decimal, intervals unbroken, `unmoved` as its caption."""
    style = table.drop(columns="key", errors="ignore").style.format(precision=1).hide().set_caption(unmoved(table))
    return style.set_properties(**{"white-space": "nowrap"})


def unmoved(table: pd.DataFrame) -> str:
    """Names the controls of a results table that mend under 1 % of the wrong answers: a gain over them shows nothing."""
    wrong = table["i→c"] + table["i→i"]
    still = table.assign(wrong=wrong)[table["setting"].str.contains(" · ") & (table["i→c"] < 0.01 * wrong)]
    counts = still.groupby(still["setting"].str.split(" · ").str[-1], sort=False)[["i→c", "wrong"]].sum()
    said = "; ".join(f"{name} ({mended:,} of {n:,} wrong answers mended)" for name, mended, n in counts.itertuples())
    told = f"Controls that did not move: {said}. Any change beats them; a gain over them is no evidence."
    return told if said else ""


def results_of(run: store.Run) -> pd.DataFrame:
    """`results` of the eval files that a run has so far."""
    return results(evaluate.metrics(run.path("evals")))


def comparisons(metrics: Row, *, against: str = BASE.stem) -> pd.DataFrame:
    """Paired differences of Acc@t2 against one eval file, in points: interval, McNemar's p, Holm's p over all
    comparisons of the run, the smallest detectable difference. A pair stored the other way is turned."""
    rows = []
    for c in metrics["comparisons"]:
        if c["a"] == against:
            c = c | {"a": c["b"], "b": c["a"], "diff": -c["diff"], "ci": [-c["ci"][1], -c["ci"][0]]}
        if c["b"] == against:
            rows.append(c)
    rows.sort(key=lambda c: Evaluation.parse(c["a"]).order)
    return pd.DataFrame([_difference(c) for c in rows], columns=list(DIFFERENCE))


def _difference(c: Row) -> Row:
    e, mde = Evaluation.parse(c["a"]), None if c["mde"] is None else 100 * c["mde"]
    points = _percent(c["diff"], c["ci"])
    told = (evaluate.label(e.setting, e.control), *points, c["p_mcnemar"], c["p_holm"], c["significant"], mde, c["n"])
    return dict(zip(DIFFERENCE, told, strict=True))


def verdicts(metrics: Row) -> list[str]:
    """What is significant after correction, in words: a sentence on all comparisons, then one on each setting against
    its baseline and controls, in the table's order; oracle mode, then intrinsic."""
    made = metrics["comparisons"]
    alone, kept = sum(c["p_mcnemar"] < 0.05 for c in made), sum(c["significant"] for c in made)
    counted = f"Of {len(made)} comparisons {kept} are significant after Holm's correction over all of them"
    counted += f" (family-wise 5 %); {alone} would be if each stood alone."
    plain = sorted((e for e in _rows(metrics) if e.control is None), key=lambda e: e.mode != "oracle")
    return [counted, *filter(None, (_verdict(made, e) for e in plain))]


def _verdict(made: Sequence[Row], one: Evaluation) -> str | None:
    kinds: dict[str, list[str]] = {"better than": [], "worse than": [], "not told apart from": []}
    for c in (c for c in made if c["a"] == one.stem):
        kind = "not told apart from" if not c["significant"] else "better than" if c["diff"] > 0 else "worse than"
        other, (diff, low, high) = Evaluation.parse(c["b"]), _percent(c["diff"], c["ci"])
        name = evaluate.label(other.setting, other.control)
        if other.control:  # the prompted baseline's need no name before them
            name = "its own " * (other.setting == one.setting) + name.rpartition(" · ")[2]
        kinds[kind].append(f"{name} {diff:+.1f} [{low:+.1f}, {high:+.1f}]")
    parts = [f"*{kind}* {', '.join(items)}" for kind, items in kinds.items() if items]
    told_nothing = ", told nothing," * (one.mode != "oracle")
    return f"**{evaluate.label(one.setting)}**{told_nothing} is {'; '.join(parts)}." if parts else None


def modes(metrics: Row) -> pd.DataFrame:
    """Intrinsic beside oracle: Δ, low and high of each setting that was evaluated both ways, in points. `broken` and
    `mended` are the shares of intrinsic mode, in percent."""
    oracle, found = _rows(metrics, "oracle"), []
    for one, r in _rows(metrics, "intrinsic").items():
        if told := oracle.get(one._replace(mode="oracle")):
            row: Row = {"setting": evaluate.label(one.setting, one.control)}
            for name, each in (("oracle", told), ("intrinsic", r)):
                columns = (f"Δ {name}", f"{name} low", f"{name} high")
                row |= zip(columns, _percent(each["delta"], each["delta_ci"]), strict=True)
            n = max(1, r["n"])
            found.append(row | {"broken": 100 * r["flips"]["ci"] / n, "mended": 100 * r["flips"]["ic"] / n, "n": n})
    return pd.DataFrame(found)


def accused(run: store.Run) -> pd.DataFrame:
    """How often a reflection that was told nothing finds fault with right and with wrong first answers. Intrinsic mode,
    embedded tasks. Columns: setting, first answer, accused, right afterwards (percent of n), n."""
    rows, columns = [], ["setting", "first answer", "accused", "right afterwards"]
    for e in (e for e in evaluate.files(run) if (e.mode, e.control) == ("intrinsic", None)):
        for r in (r for r in run.read("evals", e.file) if r["reflection"] and r["task"] in embedded.FAMILIES):
            first, fault = "right" if r["turn1_correct"] else "wrong", embedded.blamed(r["reflection"]) is not None
            rows.append((evaluate.label(e.setting), first, 100.0 * fault, 100.0 * r["turn2_correct"]))
    each = pd.DataFrame(rows, columns=columns).groupby(columns[:2], sort=False)
    return each.mean().assign(n=each.size()).reset_index()


def by_instruction(rollouts: Sequence[Row]) -> pd.DataFrame:
    """Sampled reflections by instruction: verify, locate, plan, n, and the share whose second turn was correct."""
    asked = [(r["instruction"], r["turn2"]["correct"]) for row in rollouts for r in row["reflections"]]
    named = pd.DataFrame(asked, columns=["name", "right"]).query("name != 'generic'").groupby("name")["right"]
    rows = [(*prompts.parts(name), len(right), right.mean()) for name, right in named]
    return pd.DataFrame(rows, columns=["verify", "locate", "plan", "n", "corrected"])


def _diagnosed(problems: Sequence[Row], evals: Evals) -> Iterator[tuple[str, Row, list]]:
    """(setting, row, its errors) of each wrong first answer to a synthetic question; no errors: it is unreadable."""
    by_id = {p["id"]: p for p in problems}
    for setting, rows in evals.items():
        for r in rows:
            if not r["turn1_correct"] and embedded.synthetic(by_id[r["id"]]):
                yield setting, r, embedded.diagnose(by_id[r["id"]], r["turn1"]) or []


def localisation(problems: Sequence[Row], evals: Evals) -> pd.DataFrame:
    """How often a reflection on a wrong answer blames a place that is truly wrong; empty unless tasks are synthetic.
    `evals`: rows by setting, with first answers (`evaluate.read_rows`). Columns: setting, n, localised, blames the last
    step, chance (a random place); fractions."""
    columns, hits = ["localised", "blames the last step", "chance"], {}
    for setting, r, errors in _diagnosed(problems, evals):
        if errors and r["reflection"]:
            places, steps = {place for place, _ in errors}, r["turn1"].count("Step ")
            blame = embedded.blamed(r["reflection"])
            hits.setdefault(setting, []).append((blame in places, blame == steps, len(places) / (steps + 1)))
    rows = [(s, len(found), *pd.DataFrame(found, columns=columns).mean()) for s, found in hits.items()]
    return pd.DataFrame(rows, columns=["setting", "n", *columns])


def error_classes(problems: Sequence[Row], evals: Evals) -> pd.DataFrame:
    """First error of each wrong first answer by class of the paper's taxonomy, and the share mended. Empty unless tasks
    are synthetic. `evals` as for `localisation`. Columns: setting, class, n, mended."""
    found = _diagnosed(problems, evals)
    rows = [(setting, errors[0][1] if errors else "unreadable", r["turn2_correct"]) for setting, r, errors in found]
    frame = pd.DataFrame(rows, columns=["setting", "class", "mended"])
    return frame.groupby(["setting", "class"], sort=False)["mended"].agg(n="size", mended="mean").reset_index()


def readings(shares: Sequence[Row]) -> pd.DataFrame:
    """How answers were read, from `evaluate.reading`: over all tasks, and each task in which a share is above 10 %.
    Columns: setting, task, turn, n, unreadable and cut off (percent), how (rules that read an answer and reasons why
    none was, with numbers)."""
    rows = []
    for r in shares:
        if r["task"] == "all" or any(evaluate.too_many(r, what) for what in ("unreadable", "cut_off")):
            how = ", ".join(f"{how} {n:,}" for how, n in r["how"].items())
            about = (Evaluation.parse(r["setting"]).label, r["task"], r["turn"], r["n"])
            rows.append((*about, 100 * r["unreadable"], 100 * r["cut_off"], how))
    return pd.DataFrame(rows, columns=["setting", "task", "turn", "n", "unreadable", "cut off", "how"])


def unread(run: store.Run, n: int = 10, seed: int = 0) -> pd.DataFrame:
    """`n` answers that were not read, drawn from all of the run: setting, task, id, turn, why, said (its end)."""
    found = [
        (Evaluation.parse(setting).label, about["task"], about["id"], turn, why, text[-300:])
        for setting, about, turn, why, text in evaluate.unread(run)
    ]
    rows = random.Random(f"unread/{seed}").sample(found, min(n, len(found)))
    return pd.DataFrame(rows, columns=["setting", "task", "id", "turn", "why", "said"])


def reading_notes(run: store.Run, shares: Sequence[Row]) -> str:
    """Both shares in a sentence; if one is too large also the warnings, and ten unread answers of the run in quotes."""
    lines = [evaluate.reading_summary(shares), *(warned := evaluate.reading_warnings(shares))]
    for a in unread(run).itertuples() if warned else ():
        lines.append(f"\n--- {a.setting}, {a.task}, {a.id}, turn {a.turn}: {a.why}\n{a.said}")
    return "\n".join(lines)


def training_curves(run: store.Run) -> pd.DataFrame:
    """What was logged while every adapter of a run was trained, one row per report. `accuracy` is of pairs in DPO, else
    of tokens; `margin` is DPO's, `reward` GRPO's; `validation`, the loss on held-out training questions, comes in rows
    of its own."""
    rows = []
    for path in sorted(run.path("adapters").glob("*/training.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for h in [*record["history"], *record.get("validation", [])]:
            accuracy = h.get("rewards/accuracies", h.get("mean_token_accuracy"))
            logged = (h.get("loss"), h.get("rewards/margins"), accuracy, h.get("reward"), h.get("eval_loss"))
            rows.append((path.parent.name, record["kind"], h["step"], *logged))
    columns = ("adapter", "kind", "step", "loss", "margin", "accuracy", "reward", "validation")
    return pd.DataFrame(rows, columns=columns)


def dpo_ends(curves: pd.DataFrame) -> list[str]:
    """A sentence on each DPO of `training_curves`: where its loss ended, against ln 2, at which all begin."""
    said, start = [], np.log(2)
    for name, loss in curves[curves["kind"] == "dpo"].groupby("adapter", sort=False)["loss"]:
        last, late = loss.iloc[-1], loss.tail(max(1, len(loss) // 4))
        above = f"**above** ln 2 = {start:.3f}, where it began" if last > start else f"below ln 2 = {start:.3f}"
        said.append(f"`{name}` ends at {last:.3f}, {above}; its last {len(late)} reports average {late.mean():.3f}.")
    return said


def turn_curve(evals: Evals) -> pd.DataFrame:
    """Acc@t for every turn that was run and what it cost. `evals`: rows by setting. Columns: setting, turn, accuracy
    with its Wilson interval (fractions), tokens (of this turn, per question), spent (up to and with this turn, per
    question; turn 1 is shared and counts 0), tokens per gain (that this turn spent for each further right answer; None
    if there is none), n."""
    rows = []
    for setting, found in evals.items():
        before, spent, n = None, 0.0, max(1, len(found))
        for t in evaluate.by_turn(found):
            spent += t["tokens"] / n
            gained = 0 if before is None else round((t["acc"] - before) * n)
            cost = (t["tokens"] / n, spent, t["tokens"] / gained if gained > 0 else None)
            rows.append((setting, t["turn"], t["acc"], *t["ci"], *cost, len(found)))
            before = t["acc"]
    columns = ["setting", "turn", "accuracy", "low", "high", "tokens", "spent", "tokens per gain", "n"]
    return pd.DataFrame(rows, columns=columns)


def reflections(transcripts: Transcripts, settings: Sequence[str], limit: int = 2000) -> pd.DataFrame:
    """The first `limit` reflections of each setting: setting, text, words, verb, corrected (at the second attempt)."""
    rows, frame = [], transcripts.frame
    for setting in settings:
        asked = (frame["setting"] == setting) & frame["outcome"].isin(["fixed", "still wrong"])
        for item in map(transcripts.item, np.flatnonzero(asked)[:limit]):
            if text := item["reflection"]:
                name, fixed = Evaluation.parse(setting).label, item["outcome"] == "fixed"
                rows.append((name, text, len(text.split()), first_verb(text), fixed))
    return pd.DataFrame(rows, columns=["setting", "text", "words", "verb", "corrected"])


def first_verb(text: str) -> str:
    """The first thing that a reflection tells itself to do, after "Plan:" if it has one; "none" without any."""
    found = _VERB.search(text.rpartition("Plan:")[2])
    return found[1].lower() if found else "none"


def transcript(row: Row, problem: Row) -> str:
    """One evaluated question as Markdown: question, first answer, reflection, second answer, gold."""
    first, second = ("right" if row[turn] else "wrong" for turn in ("turn1_correct", "turn2_correct"))
    parts = {"Question": prompts.question_text(problem), "First answer": row["turn1"], "Reflection": row["reflection"]}
    parts |= {"Second answer": row["turn2"], "Gold": str(problem["answer"])}
    told = [f"**{name}**\n```text\n{text}\n```" for name, text in parts.items() if text]
    return "\n\n".join([f"#### {row['id']} · {first} → {second}", *told])


def compare_runs(a: store.Run, b: store.Run, setting: str | None = None) -> pd.DataFrame:
    """Two runs, question by question: one row for each eval file that both have, or for one setting. `setting`: a
    setting's name (oracle mode) or an eval file's stem. Columns: setting, A, B (Acc@t2 in percent), difference A − B
    with its interval, McNemar's p, Holm's over these rows, the smallest detectable difference, n. Raises
    FileNotFoundError for a run without rows, ValueError for an unknown setting or if the questions differ."""
    found = []
    for one in _shared(a, b, setting):
        rows_a, rows_b = (run.read("evals", one.file) for run in (a, b))
        _check_same_questions(a, rows_a, b, rows_b)
        accuracy = [100 * sum(r["turn2_correct"] for r in rows) / max(1, len(rows)) for rows in (rows_a, rows_b)]
        found.append(evaluate.compare(one.stem, rows_a, one.stem, rows_b) | dict(zip("AB", accuracy, strict=True)))
    table = []
    for c in evaluate.correct_for_many(found):
        row, intrinsic = _difference(c), Evaluation.parse(c["a"]).mode == "intrinsic"
        table.append({"setting": row.pop("setting") + " (intrinsic)" * intrinsic, "A": c["A"], "B": c["B"]} | row)
    return pd.DataFrame(table).drop(columns="significant")


def _shared(a: store.Run, b: store.Run, setting: str | None) -> list[Evaluation]:
    own = {run.directory: set(evaluate.files(run)) for run in (a, b)}
    for directory, found in own.items():
        if not found:
            raise FileNotFoundError(f"{directory / 'evals'} holds no eval files: name a run that evaluated something")
    both = sorted(set.intersection(*own.values()), key=lambda e: (e.mode != "oracle", e.order))
    if setting is None and not both:
        raise ValueError(f"{a.directory} and {b.directory} have no setting in common")
    if setting is None or (one := Evaluation.parse(setting)) in both:
        return both if setting is None else [one]
    missing = " and ".join(str(directory) for directory, found in own.items() if one not in found)
    known = ", ".join(e.stem for e in both) or "no setting in common"
    raise ValueError(f"{missing} has no {one.stem}; both have {known}")


def _check_same_questions(a: store.Run, rows_a: list[Row], b: store.Run, rows_b: list[Row]) -> None:
    """Ids count up, so they can agree by accident: if both runs keep the questions, their texts are compared, else the
    fingerprints of the test data in env.json."""
    ids_a, ids_b = ({r["id"] for r in rows} for rows in (rows_a, rows_b))
    remedy = "compare runs with the same sources, n_test and seed"
    if ids_a != ids_b:
        only = f"{len(ids_a - ids_b):,} only in {a.directory}, {len(ids_b - ids_a):,} only in {b.directory}"
        raise ValueError(f"the runs were asked different questions: {only}; {remedy}")
    files = [run.path("data", "test.jsonl") for run in (a, b)]
    if all(f.exists() for f in files):
        texts = [{p["id"]: prompts.question_text(p) for p in store.iter_jsonl(f)} for f in files]
        alike = texts[0] == texts[1]
    else:
        alike = len({run.environment().get("data", {}).get("test.jsonl") for run in (a, b)} - {None}) < 2
    if not alike:
        same_ids = f"the ids in {a.directory} and {b.directory} are alike but the questions are not"
        raise ValueError(f"{same_ids}: {remedy} (notebook 06 pools runs with other seeds: other_seeds)")
