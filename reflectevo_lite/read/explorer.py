"""Read a run's transcripts one by one: filter, page through, compare two settings, label the mistake, leave a note.

    from .explorer import explore
    explore("artifacts/tiny_cpu")

`Transcripts` is one frame with a short row per reflection; texts stay on disk and are read by byte offset when a row is
looked at, so tens of thousands of rows open in a moment. `Explorer` is the state (what is shown, where we are, what was
annotated) and can be used without any widget. `explore` puts plain ipywidgets on top, which JupyterLab, Colab and Kaggle
all show. Annotations go to `<run_dir>/annotations.jsonl` at once, one line each, and are never rewritten.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import prompts, store
from . import errors, tables, transcripts

COLUMNS = ("setting", "task", "outcome", "instruction", "class")
NOTHING = "–"


# -- the rows --------------------------------------------------------------------------------------------------------------
class Transcripts:
    """Every transcript of a run: held-out questions under each setting, and the rollouts that training drew on.

    `frame` has one row per reflection: id, task, setting (the eval file's name, "rollouts" or "rollouts round n"),
    outcome, instruction, class (of the first attempt's error; "–" for right ones), gain (nats, NaN where not measured),
    tokens (of reflection and second attempt), and where its texts lie: file, offset (bytes), part.
    Raises FileNotFoundError where a run has neither evals nor rollouts.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.run = store.Run(store.resolve_dir(run_dir))
        self._test, self._turn1 = self.run.path("data", "test.jsonl"), self.run.path("evals", "turn1.jsonl")
        self.judged = errors.latest(errors.read_labels(self.run.path("error_labels.jsonl")))
        tested, first = list(_lines(self._test)), list(_lines(self._turn1))
        ids = [row["id"] for _, row in tested] or self._ids()
        self._problem_at = {row["id"]: offset for offset, row in tested}
        self._first_at = {id: offset for id, (offset, _) in zip(ids, first, strict=False)}
        problems = {row["id"]: row for _, row in tested}
        attempts = {id: row for id, (_, row) in zip(ids, first, strict=False)}
        rows = [*self._held_out(problems, attempts), *self._rollouts()]
        if not rows:
            raise FileNotFoundError(
                f"{self.run.directory} has no evals/*.jsonl and no rollouts/train.jsonl: run notebook 02_reflection_generation first"
            )
        self.frame = _frame(rows)

    def item(self, i: int) -> dict[str, Any]:
        """Row i of the frame with its texts: id, setting, outcome, problem, question, turn1, reflection, turn2, …"""
        row = self.frame.iloc[i].to_dict()
        stored = _read(self.run.path(row["file"]), row["offset"])
        return row | (self._of_eval(stored) if "problem" not in stored else _of_rollout(stored, row["part"]))

    def _of_eval(self, row: dict[str, Any]) -> dict[str, Any]:
        problem = _read(self._test, self._problem_at.get(row["id"]))
        first = _read(self._turn1, self._first_at.get(row["id"])) or {}
        return {
            "problem": problem,
            "question": transcripts.question_of(problem, first.get("prompt", ())),
            "turn1": first.get("completion") or row.get("turn1") or "",
            "reflection": row["reflection"],
            "turn2": row["turn2"],
        }

    def _ids(self) -> list[str]:
        """The held-out questions in order, where data/test.jsonl is not kept: from any eval file."""
        return next(([row["id"] for _, row in _lines(path)] for path in self._eval_files()), [])

    def _eval_files(self) -> list[Path]:
        return sorted(self.run.path("evals").glob("*.*.jsonl"))

    def _held_out(self, problems: dict[str, Any], attempts: dict[str, Any]) -> Iterator[dict[str, Any]]:
        labels: dict[str, str] = {}
        for path in self._eval_files():
            for offset, row in _lines(path):
                id = row["id"]
                if not row["turn1_correct"] and id not in labels:
                    first = attempts.get(id) or {"completion": row.get("turn1", "")}
                    labels[id] = self._class(id, problems.get(id), first)
                yield {
                    "id": id,
                    "task": row["task"],
                    "setting": path.stem,
                    "outcome": transcripts.outcome_of(row["turn1_correct"], row["turn2_correct"]),
                    "instruction": "generic" if row["reflection"] else NOTHING,
                    "class": NOTHING if row["turn1_correct"] else labels[id],
                    "gain": row.get("gain"),
                    "tokens": row["tokens"],
                    "file": f"evals/{path.name}",
                    "offset": offset,
                    "part": 0,
                }

    def _rollouts(self) -> Iterator[dict[str, Any]]:
        files = {"rollouts": self.run.path("rollouts", "train.jsonl")}
        rounds = sorted(
            self.run.path("rounds").glob("*/rollouts.jsonl"), key=lambda p: (len(p.parent.name), p.parent.name)
        )
        for setting, path in (files | {f"rollouts round {p.parent.name}": p for p in rounds}).items():
            name = path.relative_to(self.run.directory).as_posix()
            for offset, row in _lines(path):
                yield from self._rollout(row, {"setting": setting, "file": name, "offset": offset})

    def _rollout(self, row: dict[str, Any], common: dict[str, Any]) -> Iterator[dict[str, Any]]:
        first = row["turn1"]
        common |= {"id": row["id"], "task": row["problem"]["task"]}
        common["class"] = NOTHING if first["correct"] else self._class(row["id"], row["problem"], first)
        if not row["reflections"]:
            outcome = transcripts.outcome_of(first["correct"], first["correct"])
            yield common | {"outcome": outcome, "instruction": NOTHING, "gain": None, "tokens": 0, "part": -1}
        for part, reflection in enumerate(row["reflections"]):
            yield common | {
                "outcome": transcripts.outcome_of(first["correct"], reflection["turn2"]["correct"]),
                "instruction": reflection["instruction"],
                "gain": reflection.get("gain"),
                "tokens": reflection["tokens"] + reflection["turn2"]["tokens"],
                "part": part,
            }

    def _class(self, id: str, problem: dict[str, Any] | None, attempt: dict[str, Any]) -> str:
        if judged := self.judged.get(id):
            return judged
        found = errors.by_rule(
            problem, attempt["completion"], attempt.get("answer", ""), truncated=attempt.get("truncated", False)
        )
        return found or errors.UNLABELLED


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    for name in ("setting", "task", "outcome", "instruction", "class", "file"):
        frame[name] = frame[name].astype("category")
    frame["class"] = frame["class"].cat.add_categories(
        [c for c in errors.CLASSES if c not in frame["class"].cat.categories]
    )
    return frame.assign(gain=frame["gain"].astype("float64"))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(byte offset, row) of each whole line of a file; nothing where there is no file."""
    if not path.exists():
        return
    offset = 0
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield offset, json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not a JSON row; mend or delete that line") from error
            offset += len(line)


def _read(path: Path, offset: int | None) -> Any:
    if offset is None:
        return None
    with open(path, "rb") as lines:
        lines.seek(int(offset))
        return json.loads(lines.readline())


def _of_rollout(row: dict[str, Any], part: int) -> dict[str, Any]:
    reflection = row["reflections"][part] if part >= 0 else None
    return {
        "problem": row["problem"],
        "question": transcripts.question_of(row["problem"]),
        "turn1": row["turn1"]["completion"],
        "reflection": reflection and reflection["text"],
        "turn2": reflection and reflection["turn2"]["completion"],
    }


# -- the state -------------------------------------------------------------------------------------------------------------
class Explorer:
    """What is shown of a run and where we are in it. Every method returns what it changed; no widget is needed.

    `frame` holds all rows (see `Transcripts`), `shown` the numbers of those that pass the filter, `position` the place
    in `shown` (-1 where nothing passes), `other` the setting that the current question is compared with.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.transcripts = Transcripts(run_dir)
        self.frame = self.transcripts.frame
        self.path = self.transcripts.run.path("annotations.jsonl")
        self.other: str | None = None
        self.notes: dict[tuple[str, str], dict[str, Any]] = {}
        self._rule = self.frame["class"].copy()
        self._rows_of = {id: np.asarray(at) for id, at in self.frame.groupby("id", sort=False).indices.items()}
        for row in errors.read_labels(self.path):
            self._apply(row)
        self.shown = np.arange(len(self.frame))
        self.position = 0 if len(self.shown) else -1

    def options(self, column: str) -> dict[str, int]:
        """The values of one of `COLUMNS` with their numbers of rows; settings and classes in their usual order."""
        counts = self.frame[column].value_counts()
        found = {name: int(n) for name, n in counts.items() if n}
        order = {"outcome": list(transcripts.OUTCOMES), "class": [*errors.CLASSES]}.get(
            column, sorted(found, key=_rank)
        )
        return {name: found[name] for name in [*order, *found] if name in found}

    def filter(self, *, gain: tuple[float, float] | None = None, **wanted: str | Sequence[str] | None) -> pd.DataFrame:
        """Show the rows that have every wanted value, and go to the first; returns them.

        Keywords are `COLUMNS` (the error class also as `error`), each a value or a list of them; None asks for nothing.
        `gain` is an interval in nats, both ends included; rows without a gain are then left out. Raises ValueError for an
        unknown name or value.
        """
        mask = np.ones(len(self.frame), bool)
        for name, values in wanted.items():
            mask &= self._mask("class" if name == "error" else name, values)
        if gain is not None:
            mask &= self.frame["gain"].between(*gain).to_numpy()
        self.shown = np.flatnonzero(mask)
        self.position = 0 if len(self.shown) else -1
        return self.frame.iloc[self.shown]

    def _mask(self, column: str, values: str | Sequence[str] | None) -> np.ndarray:
        if column not in COLUMNS:
            raise ValueError(f"unknown filter {column!r}; there are {', '.join(COLUMNS)}, error and gain")
        if values is None:
            return np.ones(len(self.frame), bool)
        values = [values] if isinstance(values, str) else list(values)
        if unknown := [v for v in values if v not in self.frame[column].cat.categories]:
            raise ValueError(f"no row has {column} {unknown[0]!r}; there are {', '.join(self.options(column))}")
        return self.frame[column].isin(values).to_numpy()

    def select(self, position: int) -> dict[str, Any]:
        """Go to a place among the rows shown and return that row with its texts. Raises IndexError."""
        if not 0 <= position < len(self.shown):
            raise IndexError(f"position {position} of {len(self.shown)} rows shown")
        self.position = position
        return self.current()

    def next(self) -> dict[str, Any] | None:
        """Go one row on (stay at the end) and return it."""
        self.position = min(self.position + 1, len(self.shown) - 1)
        return self.current()

    def previous(self) -> dict[str, Any] | None:
        """Go one row back (stay at the start) and return it."""
        self.position = min(max(self.position - 1, 0), len(self.shown) - 1)
        return self.current()

    def current(self) -> dict[str, Any] | None:
        """The current row with its texts; None where nothing is shown."""
        return self.transcripts.item(int(self.shown[self.position])) if self.position >= 0 else None

    def compare(self, setting: str | None) -> dict[str, Any] | None:
        """Set the setting to compare with (None: none) and return the current question under it, if it has it."""
        if setting is not None and setting not in self.frame["setting"].cat.categories:
            raise ValueError(f"no setting {setting!r}; there are {', '.join(self.options('setting'))}")
        self.other = setting
        if setting is None or self.position < 0:
            return None
        here = int(self.shown[self.position])
        rows = [i for i in self._rows_of[self.frame["id"].iat[here]] if i != here]
        found = [i for i in rows if self.frame["setting"].iat[i] == setting]
        return self.transcripts.item(int(found[0])) if found else None

    def annotate(self, error: str | None = None, note: str = "") -> dict[str, Any]:
        """Label the error class of the current first attempt and leave a note; on disk before this returns.

        Appended to annotations.jsonl; the last line for an (id, setting) is the one that counts, and None or "" takes a
        label or note back. The first attempt is the same under all settings, so its class is too. Raises ValueError for
        an unknown class or where nothing is shown, OSError where the file cannot be written.
        """
        if self.position < 0:
            raise ValueError("no row is shown: nothing to annotate")
        if error is not None and error not in errors.CLASSES:
            raise ValueError(f"unknown error class {error!r}; there are {', '.join(errors.CLASSES)}")
        here = self.frame.iloc[int(self.shown[self.position])]
        row = {"id": here["id"], "setting": here["setting"], "class": error, "note": note, "by": "reader"}
        return self._apply(errors.append_label(self.path, row))

    def annotation(self) -> dict[str, Any]:
        """Class and note of the current row as annotated (None and "" where not)."""
        none = {"class": None, "note": ""}
        if self.position < 0:
            return none
        here = self.frame.iloc[int(self.shown[self.position])]
        return self.notes.get((here["id"], here["setting"]), none)

    def _apply(self, row: dict[str, Any]) -> dict[str, Any]:
        """Take an annotation into the frame; rows that are not of this run are kept in the file and passed over."""
        self.notes[row["id"], row.get("setting", "")] = row
        if (rows := self._rows_of.get(row["id"])) is not None and row.get("class") in (None, *errors.CLASSES):
            column = self.frame.columns.get_loc("class")
            self.frame.iloc[rows, column] = row.get("class") or self._rule.iloc[rows]
        return row

    def page(self) -> str:
        """The current question as HTML, with the compared setting beside it."""
        item = self.current()
        if item is None:
            return '<div class="rl-page"><span class="none">No row passes this filter.</span></div>'
        other = self.compare(self.other)
        chips = [
            transcripts.outcome_chip(item["outcome"]),
            transcripts.chip(item["task"]),
            transcripts.chip(setting_name(item["setting"])),
        ]
        if item["instruction"] not in (NOTHING, "generic"):
            chips.append(
                transcripts.chip(f"instruction {item['instruction']}: look for {prompts.aspect(item['instruction'])}")
            )
        if item["class"] != NOTHING:
            chips.append(transcripts.chip(f"mistake: {item['class']}"))
        if item["gain"] == item["gain"]:
            chips.append(transcripts.chip(f"gain {item['gain']:+.2f} nats"))
        if self.other and not other:
            chips.append(transcripts.chip(f"not asked under {setting_name(self.other)}"))
        named = [each | {"name": setting_name(each["setting"])} for each in (item, other) if each]
        return transcripts.page(named[0], named[1:], chips=chips)


def setting_name(setting: str) -> str:
    """A setting of the frame in words: "reflector_only.oracle" → "reflector SFT (D+)"; oracle mode goes without saying."""
    name, mode, control = [*setting.split("."), None, None][:3]
    return tables.label(name, control) + (f", {mode}" if mode not in (None, "oracle") else "")


def _rank(name: str) -> tuple:
    setting, _, rest = name.partition(".")
    known = list(tables.NAMES)
    place = known.index(setting) if setting in known else len(known) + name.startswith("rollouts")
    return (place, setting, rest)


def explore(run_dir: str | Path) -> Any:
    """Show the explorer of a run in a notebook; returns its `Explorer`, so that a cell can go on from what is shown."""
    from .widgets import show

    return show(Explorer(run_dir))
