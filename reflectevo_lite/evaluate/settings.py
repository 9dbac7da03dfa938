"""The one registry of settings: what is trained on which rows from which start, who writes what, what is evaluated.

Everything else reads it: a setting is one entry here (docs/adding.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .. import store

CONTROLS: dict[str, str] = {
    "retry": "plain retry",
    "shuffled": "shuffled reflections",
    "resample": "fresh answers (verifier picks)",
    "resample_vote": "fresh answers (majority vote)",
}


class Evaluation(NamedTuple):
    """One eval file: held-out questions under a setting, in a mode, perhaps with a control; it builds the name."""

    setting: str
    mode: Any = "oracle"  # a `prompts.Mode`
    control: str | None = None

    @classmethod
    def parse(cls, stem: str) -> Evaluation:
        """From a file's stem or name: `<setting>.<mode>[.<control>]`. A setting alone is in oracle mode."""
        setting, mode, control, *_ = [*stem.removesuffix(".jsonl").split("."), None, None]
        return cls(setting, mode or "oracle", control)

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return ".".join(filter(None, self))

    @property
    def file(self) -> str:
        """The file's name."""
        return f"{self.stem}.jsonl"

    @property
    def label(self) -> str:
        """In words; the mode is said if it is not the paper's."""
        name = label(self.setting, self.control)
        return name if self.mode == "oracle" else f"{name}, told nothing"

    @property
    def controls(self) -> bool:
        """Whether it is there to be compared with: a control of a setting, or a setting of that family."""
        return self.control is not None or setting(self.setting).family == "control"

    @property
    def headline(self) -> bool:
        """Whether it is one of the few that tell the story."""
        plain = self.setting in HEADLINE or setting(self.setting).before is not None
        return self.mode == "oracle" and (plain if self.control is None else self[::2] == (BASELINE, "shuffled"))

    @property
    def order(self) -> tuple[int, str, str]:
        """For sorting as the tables do: settings as registered, the setting itself before its controls."""
        places = {name: i for i, name in enumerate(SETTINGS)}
        return places.get(self.setting, len(places)), self.setting, self.control or ""


def files(run: store.Run) -> dict[Evaluation, Path]:
    """The eval files that a run has, in name order."""
    return {Evaluation.parse(path.name): path for path in sorted(run.path("evals").glob("*.*.jsonl"))}


def rollout_files(run: store.Run) -> dict[str, Path]:
    """The files of rollouts that a run has, by name: "rollouts", then "rollouts round 2" and so on."""
    rounds = sorted(run.path("rounds").glob("*/rollouts.jsonl"), key=lambda path: (len(path.parent.name), path))
    paths = {"rollouts": run.path("rollouts", "train.jsonl")} | {f"rollouts round {p.parent.name}": p for p in rounds}
    return {name: path for name, path in paths.items() if path.exists()}


class Training(NamedTuple):
    """One adapter of a run: its folder in `adapters/`, how it is trained, on what, from where, with whose rates."""

    name: str
    label: str
    notebook: str
    kind: Literal["sft", "dpo", "grpo"]
    form: str  # what an example is: a key of `curate.FORMS`
    rows: str  # the file of rows that examples are made of, in the run directory
    start: str | None = None  # the adapter that it goes on from
    rates: Literal["sft", "corrector", "dpo", "further", "grpo"] = "sft"  # parameters <rates>_learning_rate, _epochs, …


PLUS, UNFILTERED = "curated/d_plus.jsonl", "curated/unfiltered.jsonl"
PAIRS, PREFERRED, ROLLOUTS = "curated/d_pm.jsonl", "curated/d_pref.jsonl", "rollouts/train.jsonl"
_TRAININGS = (
    Training("reflector", "reflector (D+)", "03_sft", "sft", "reflector", PLUS),
    Training("corrector", "corrector (D+)", "03_sft", "sft", "corrector", PLUS, rates="corrector"),
    Training("one_stage", "one-stage (D+)", "03_sft", "sft", "one_stage", PLUS),
    Training("unfiltered", "reflector (unfiltered)", "03_sft", "sft", "reflector", UNFILTERED),
    Training("qa", "answers only", "03_sft", "sft", "qa", ROLLOUTS),
    Training("dpo_pm", "DPO (D±)", "04_dpo", "dpo", "preference", PAIRS, rates="dpo"),
    Training("dpo_pref", "DPO (D^pref)", "04_dpo", "dpo", "preference", PREFERRED, rates="dpo"),
    Training("sft_dpo", "SFT, then DPO (D±)", "04_dpo", "dpo", "preference", PAIRS, "reflector", rates="further"),
    Training("plus_true", "reflector (D+, true)", "ablation", "sft", "reflector", "curated/plus_true.jsonl"),
    Training("plus_lucky", "reflector (D+, lucky)", "ablation", "sft", "reflector", "curated/plus_lucky.jsonl"),
    Training("star", "corrected answers", "ablation", "sft", "star", PLUS),
    Training("redo", "corrected second answers", "ablation", "sft", "redo", PLUS),
    Training("one_pass", "one pass", "one_pass", "dpo", "preference", "curated/one_pass.jsonl", "reflector", "further"),
    Training("grpo", "GRPO", "grpo", "grpo", "reward", ROLLOUTS, rates="grpo"),
)
TRAININGS: dict[str, Training] = {t.name: t for t in _TRAININGS}


class Setting(NamedTuple):
    """A way from the first answer to the second. Adapters by name (of `TRAININGS`) or by path; None: the base model."""

    name: str
    label: str = ""
    notebook: str = ""
    reflector: str | Path | None = None
    corrector: str | Path | None = None
    plain: bool = False  # it answers again without a reflection
    one_stage: bool = False  # reflection and second attempt in one completion, by `reflector`
    answers: str | Path | None = None  # it never reflects: this adapter answers every question anew
    also: tuple[tuple[str, str | None], ...] = ()  # evaluated beside its plain oracle mode
    multi_turn: bool = False  # goes on for as many turns as a run asks for
    family: Literal["prompted", "control", "sft", "preference", "reward", "answers"] = "sft"  # its colour in figures
    before: str | None = None  # a further setting that it is compared with: the round before

    def at(self, run: store.Run) -> Setting:
        """With its adapters as paths in a run."""
        named = {key: getattr(self, key) for key in ("reflector", "corrector", "answers")}
        paths: Any = {k: run.path("adapters", name) for k, name in named.items() if isinstance(name, str)}
        return self._replace(**paths)

    @property
    def trained(self) -> bool:
        """Whether every adapter of a setting with paths was trained; one with nothing to train on is left out."""
        adapters = [a for a in (self.reflector, self.corrector, self.answers) if a]
        return all((Path(a) / "training.json").exists() for a in adapters)

    def evaluations(self, turns: int = 2) -> dict[Evaluation, int]:
        """What is evaluated, each with its number of turns."""
        plain = {Evaluation(self.name): turns if self.multi_turn else 2}
        return plain | {Evaluation(self.name, mode, control): 2 for mode, control in self.also}


BASELINE, UNFILTERED_CONTROL = "prompted", "unfiltered"  # what every setting is compared with
_RETRY, _SHUFFLED, _UNTOLD = ("oracle", "retry"), ("oracle", "shuffled"), ("intrinsic", None)
_FIRST = (_RETRY, _SHUFFLED, _UNTOLD, ("intrinsic", "retry"))
_TWO, _THREE, _FOUR = "02_reflection_generation", "03_sft", "04_dpo"
_SETTINGS = (  # in the order of the paper's table
    Setting(BASELINE, "prompted reflection", _TWO, also=_FIRST, multi_turn=True, family="prompted"),
    Setting("one_stage_prompted", "prompted, one completion", _TWO, one_stage=True, family="prompted"),
    Setting("qa", "SFT on answers (its own turn 1)", _THREE, answers="qa", family="answers"),
    Setting("one_stage", "one-stage SFT (D+)", _THREE, "one_stage", one_stage=True),
    Setting("two_stage", "two-stage SFT (D+)", _THREE, "reflector", "corrector", also=(_RETRY,)),
    Setting("reflector_only", "reflector SFT (D+)", _THREE, "reflector", also=(_SHUFFLED, _UNTOLD), multi_turn=True),
    Setting(UNFILTERED_CONTROL, "reflector SFT (unfiltered)", _THREE, "unfiltered", family="control"),
    Setting("dpo_pm", "DPO (D±)", _FOUR, "dpo_pm", family="preference"),
    Setting("dpo_pref", "DPO (D^pref)", _FOUR, "dpo_pref", family="preference"),
    Setting("sft_dpo", "reflector SFT, then DPO (D±)", _FOUR, "sft_dpo", family="preference"),
    Setting("grpo", "GRPO (reward: turn 2 is right)", "grpo", "grpo", family="reward"),
    Setting("plus_true", "reflector SFT (true D+)", "ablation", "plus_true"),
    Setting("plus_lucky", "reflector SFT (lucky D+)", "ablation", "plus_lucky", family="control"),
    Setting("star", "SFT on corrected answers (turn 1)", "ablation", answers="star", family="answers"),
    Setting("redo", "SFT on second answers, no reflection", "ablation", corrector="redo", plain=True, family="control"),
    Setting("one_pass", "one pass over all rounds' questions", "one_pass", "one_pass", family="preference"),
    Setting("gain_top", "reflector SFT (half of D+ by gain)", "gain", "gain_top"),
    Setting("gain_random", "reflector SFT (random half of D+)", "gain", "gain_random", family="control"),
)
SETTINGS: dict[str, Setting] = {s.name: s for s in _SETTINGS}
HEADLINE = (BASELINE, "one_stage", "two_stage", "reflector_only", UNFILTERED_CONTROL, "dpo_pm", "sft_dpo", "redo")


def round_setting(r: int) -> Setting:
    """Round r of notebook 05; round 0 is the prompted base model, round 1 notebook 03's reflector."""
    if r < 2:
        return SETTINGS["reflector_only" if r else BASELINE]
    name, before = f"round_{r}", round_setting(r - 1).name
    return Setting(name, f"round {r}", "05_iteration", name, multi_turn=True, family="preference", before=before)


def setting(name: str) -> Setting:
    """The registered setting, round or bare name; an unknown one keeps its name, with spaces."""
    number = name.removeprefix("round_")
    if number != name and number.isdigit():
        return round_setting(int(number))
    return SETTINGS.get(name) or Setting(name, name.replace("_", " "))


def label(name: str, control: str | None = None) -> str:
    """A setting (and control) in words."""
    said = setting(name).label
    return said if control is None else f"{said} · {CONTROLS.get(control, control)}"


def trainings(notebook: str) -> list[Training]:
    """What a notebook trains, in order."""
    return [t for t in TRAININGS.values() if t.notebook == notebook]


def settings(notebook: str, run: store.Run) -> Iterator[Setting]:
    """The trained settings that a notebook evaluates, with their adapters' paths."""
    return (s for one in SETTINGS.values() if one.notebook == notebook and (s := one.at(run)).trained)


def reflecting(run: store.Run) -> list[str]:
    """The evaluated settings in which the Reflector writes texts of its own and the untrained Generator answers."""
    plain = sorted((e for e in files(run) if e.mode == "oracle" and not e.control), key=lambda e: e.order)
    return [s.name for e in plain if not ((s := setting(e.setting)).one_stage or s.answers or s.corrector)]


def left_out(run: store.Run) -> list[str]:
    """Settings that a run has no figures for because their training set came out empty, in words."""
    tried = [t for t in TRAININGS.values() if t.notebook in run.params()]
    empty = [t.name for t in tried if (p := run.path(t.rows)).exists() and not p.stat().st_size]
    sets = sorted(run.path("rounds").glob("*/d_p*.jsonl"))
    lost = [s for s in SETTINGS.values() if {s.reflector, s.corrector, s.answers} & set(empty)]
    lost += [round_setting(int(p.parent.name)) for p in sets if not p.stat().st_size]
    return [s.label for s in lost if not run.path("evals", Evaluation(s.name).file).exists()]
