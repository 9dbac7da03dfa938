"""Read a run's transcripts one by one: filter, page through, compare two settings, label the mistake, leave a note.

Nothing here needs a widget; `widgets.explore` puts some on top."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import evaluate, prompts, store
from ..evaluate import Evaluation
from . import mistakes, transcripts

COLUMNS = ("setting", "task", "outcome", "instruction", "class")
NOTHING = "–"
_FRAME = ("id", "task", "setting", "outcome", "instruction", "class", "tokens", "file", "place", "part")


class Transcripts:
    """Every transcript of a run: held-out questions under each setting, and the rollouts that training drew on. `frame`
    has one row per reflection: id, task, setting (the eval file's stem, "rollouts" or "rollouts round n"), outcome,
    instruction, class (of the first attempt's error; "–" for right ones), tokens (of reflection and second attempt).
    Texts stay on disk (in file, row `place`, reflection `part`) until `item` reads them, so tens of thousands of rows
    open in a moment. Raises FileNotFoundError if a run has neither evals nor rollouts."""

    def __init__(self, run_dir: str | Path) -> None:
        self.run = store.Run(store.resolve_dir(run_dir))
        self._files: dict[str, Sequence[dict[str, Any]]] = {}
        self._tested, self._first = self._open("data/test.jsonl"), self._open("evals/turn1.jsonl")
        evals = {found: f"evals/{path.name}" for found, path in evaluate.files(self.run).items()}
        questions = self._tested or (self._open(next(iter(evals.values()))) if evals else [])
        self._place_of = {row["id"]: place for place, row in enumerate(questions)}
        rows = [*self._held_out(evals), *self._rollouts()]
        if not rows:
            missing = f"{self.run.directory} has no evals/*.jsonl and no rollouts/train.jsonl"
            raise FileNotFoundError(f"{missing}: run notebook 02_reflection_generation first")
        self.frame = pd.DataFrame(rows, columns=_FRAME).astype(dict.fromkeys((*COLUMNS, "file"), "category"))
        classes = self.frame["class"].cat
        self.frame["class"] = classes.add_categories([c for c in mistakes.CLASSES if c not in classes.categories])

    def item(self, i: int) -> dict[str, Any]:
        """Row i of the frame with its texts: id, setting, outcome, problem, question, turn1, reflection, turn2, …"""
        row = self.frame.iloc[i].to_dict()
        stored = self._files[row["file"]][row["place"]]
        if "problem" in stored:
            problem, first, said = stored["problem"], stored["turn1"], (None, None)
            if row["part"] >= 0:
                reflection = stored["reflections"][row["part"]]
                said = (reflection["text"], reflection["turn2"]["completion"])
        else:
            (problem, first), said = self._asked(stored), (stored["reflection"], stored["turn2"])
        prompt = first.get("prompt")
        # as the model saw it; from the stored prompt if the problem is not at hand
        question = prompts.question_text(problem) if problem else prompt[0]["content"] if prompt else ""
        texts = dict(zip(("turn1", "reflection", "turn2"), (first["completion"], *said), strict=True))
        return row | {"problem": problem, "question": question} | texts

    def _open(self, file: str) -> Sequence[dict[str, Any]]:
        path = self.run.directory / file
        self._files[file] = store.Rows(path) if path.exists() else []
        return self._files[file]

    def _asked(self, row: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Problem (None: not kept) and first attempt of an eval row."""
        place = self._place_of.get(row["id"])
        problem = self._tested[place] if self._tested and place is not None else None
        kept = place is not None and place < len(self._first)
        return problem, self._first[place] if kept else {"completion": row.get("turn1") or ""}

    def _held_out(self, evals: dict[Evaluation, str]) -> Iterator[tuple]:
        labels: dict[str, str] = {}
        for found, file in evals.items():
            for place, row in enumerate(self._open(file)):
                id, right = row["id"], row["turn1_correct"]
                if not right and id not in labels:
                    labels[id] = _class(*self._asked(row))
                outcome = transcripts.outcome_of(right, row["turn2_correct"])
                told = ("generic" if row["reflection"] else NOTHING, NOTHING if right else labels[id], row["tokens"])
                yield id, row["task"], found.stem, outcome, *told, file, place, 0

    def _rollouts(self) -> Iterator[tuple]:
        for setting, path in evaluate.rollout_files(self.run).items():
            file = path.relative_to(self.run.directory).as_posix()
            for place, row in enumerate(self._open(file)):
                first = row["turn1"]
                about = (row["id"], row["problem"]["task"], setting)
                mistake = NOTHING if first["correct"] else _class(row["problem"], first)
                none = {"instruction": NOTHING, "tokens": 0, "turn2": {"correct": first["correct"], "tokens": 0}}
                for part, r in enumerate(row["reflections"]) if row["reflections"] else [(-1, none)]:
                    outcome = transcripts.outcome_of(first["correct"], r["turn2"]["correct"])
                    tokens = r["tokens"] + r["turn2"]["tokens"]
                    yield *about, outcome, r["instruction"], mistake, tokens, file, place, part


def _class(problem: dict[str, Any] | None, attempt: dict[str, Any]) -> str:
    cut, answer = attempt.get("truncated", False), attempt.get("answer", "")
    return mistakes.by_rule(problem, attempt["completion"], answer, truncated=cut) or mistakes.UNLABELLED


class Explorer:
    """What is shown of a run and where we are in it. Every method returns what it changed. `frame` holds all rows (see
    `Transcripts`), `shown` the numbers of those that pass the filter, `position` the place in `shown` (-1 if nothing
    passes), `other` the setting that the current question is compared with."""

    def __init__(self, run_dir: str | Path) -> None:
        self.transcripts = Transcripts(run_dir)
        self.frame = self.transcripts.frame
        self.path = self.transcripts.run.path("annotations.jsonl")
        self.other: str | None = None
        self._notes: dict[tuple[str, str], dict[str, Any]] = {}
        self._by_rule = self.frame["class"].copy()
        self._rows_of = {id: np.asarray(at) for id, at in self.frame.groupby("id", sort=False).indices.items()}
        for row in store.iter_jsonl(self.path) if self.path.exists() else ():
            self._apply(row)
        self.show(range(len(self.frame)))

    def show(self, rows: Sequence[int]) -> None:
        """Show some rows of the frame, by number, and go to the first."""
        self.shown, self.position = np.asarray(rows, int), 0 if len(rows) else -1

    def options(self, column: str) -> dict[str, int]:
        """The values of one of `COLUMNS` with their numbers of rows; settings and classes in their usual order."""
        found = {name: int(n) for name, n in self.frame[column].value_counts().items() if n}
        usual = {"outcome": transcripts.OUTCOMES, "class": mistakes.CLASSES, "setting": sorted(found, key=_rank)}
        return {name: found[name] for name in (*usual.get(column, sorted(found)), *found) if name in found}

    def filter(self, **wanted: str | Sequence[str] | None) -> pd.DataFrame:
        """Show the rows that have every wanted value, and go to the first; returns them. Keywords are `COLUMNS` (the
        class also as `error`), each a value or a list; None asks for nothing. Raises ValueError for an unknown name or
        value."""
        mask = np.ones(len(self.frame), bool)
        for name, values in wanted.items():
            column = "class" if name == "error" else name
            if column not in COLUMNS:
                raise ValueError(f"unknown filter {column!r}; there are {', '.join(COLUMNS)} and error")
            if values is not None:
                values = [values] if isinstance(values, str) else list(values)
                if unknown := [v for v in values if v not in self.frame[column].cat.categories]:
                    raise ValueError(f"no row has {column} {unknown[0]!r}; there are {', '.join(self.options(column))}")
                mask &= self.frame[column].isin(values).to_numpy()
        self.show(np.flatnonzero(mask))
        return self.frame.iloc[self.shown]

    def select(self, position: int) -> dict[str, Any]:
        """Go to a place among the rows shown and return that row with its texts. Raises IndexError."""
        if not 0 <= position < len(self.shown):
            raise IndexError(f"position {position} of {len(self.shown)} rows shown")
        self.position = position
        return self.transcripts.item(int(self.shown[position]))

    def current(self) -> dict[str, Any] | None:
        """The current row with its texts; None if nothing is shown."""
        return self.select(self.position) if self.position >= 0 else None

    def next(self, step: int = 1) -> dict[str, Any] | None:
        """Go on by some rows (stay at the end) and return the current one."""
        if self.position >= 0:
            self.position = min(max(self.position + step, 0), len(self.shown) - 1)
        return self.current()

    def previous(self) -> dict[str, Any] | None:
        """Go one row back (stay at the start) and return it."""
        return self.next(-1)

    def compare(self, setting: str | None) -> dict[str, Any] | None:
        """Set the setting to compare with (None: none) and return the current question under it, if it has it."""
        if setting is not None and setting not in self.frame["setting"].cat.categories:
            raise ValueError(f"no setting {setting!r}; there are {', '.join(self.options('setting'))}")
        self.other = setting
        if setting is None or self.position < 0:
            return None
        here = int(self.shown[self.position])
        found = [i for i in self._rows_of[self.frame["id"].iat[here]] if self.frame["setting"].iat[i] == setting]
        return next((self.transcripts.item(int(i)) for i in found if i != here), None)

    def annotate(self, error: str | None = None, note: str = "") -> dict[str, Any]:
        """Label the error class of the current first attempt and leave a note; on disk before this returns. Appended to
        `<run_dir>/annotations.jsonl`: the last line for an (id, setting) counts, None or "" takes a label or note back.
        All settings share the first attempt, so its class too. Raises ValueError for an unknown class or if nothing is
        shown, OSError if the file cannot be written."""
        if self.position < 0:
            raise ValueError("no row is shown: nothing to annotate")
        if error is not None and error not in mistakes.CLASSES:
            raise ValueError(f"unknown error class {error!r}; there are {', '.join(mistakes.CLASSES)}")
        id, setting = self._here()
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        row = {"id": id, "setting": setting, "class": error, "note": note, "by": "reader", "time": now}
        store.append_line(self.path, row)
        return self._apply(row)

    def annotation(self) -> dict[str, Any]:
        """Class and note of the current row as annotated (None and "" if not)."""
        none = {"class": None, "note": ""}
        return self._notes.get(self._here(), none) if self.position >= 0 else none

    def _here(self) -> tuple[str, str]:
        return tuple(self.frame.iloc[int(self.shown[self.position])][["id", "setting"]])

    def _apply(self, row: dict[str, Any]) -> dict[str, Any]:
        """Take an annotation into the frame; one that is not of this run's rows is passed over."""
        self._notes[row["id"], row["setting"]] = row
        if (rows := self._rows_of.get(row["id"])) is not None and row["class"] in (None, *mistakes.CLASSES):
            self.frame.iloc[rows, self.frame.columns.get_loc("class")] = row["class"] or self._by_rule.iloc[rows]
        return row

    def page(self) -> str:
        """The current question as HTML, with the compared setting beside it."""
        if (item := self.current()) is None:
            return transcripts.page([])
        other, chips = self.compare(self.other), [item["task"], setting_name(item["setting"])]
        if item["instruction"] not in (NOTHING, "generic"):
            chips.append(f"instruction {item['instruction']}: look for {prompts.aspect(item['instruction'])}")
        if item["class"] != NOTHING:
            chips.append(f"mistake: {item['class']}")
        if self.other and not other:
            chips.append(f"not asked under {setting_name(self.other)}")
        shown = [each | {"name": setting_name(each["setting"])} for each in (item, other) if each]
        return transcripts.page(shown, chips)


def setting_name(setting: str) -> str:
    """A setting of the frame in words."""
    return Evaluation.parse(setting).label


def _rank(setting: str) -> tuple:
    found = Evaluation.parse(setting)
    return (setting.startswith("rollouts"), found.order, found.mode != "oracle", setting)
