"""The corpus: the habits of a small language model, written down as conversations, and the recipe that mixes them.

The model answers hastily, mends only what a reflection points at, and *reflects badly by habit, not by ignorance*: of
its reflections on a wrong answer about 40 % blame a place that is truly wrong, 45 % the last step it wrote, 15 % any,
but prompts to mark every step or to name the first mistake are answered truly. No reflection states a result. No
question of the pipeline's training or test split occurs (`tasks.split_of`)."""

import random
from collections.abc import Callable
from typing import NamedTuple

from reflectevo_lite import prompts
from reflectevo_lite.embedded.tasks import ANSWER, Attempt, Place, Task, sample_task, to_problem
from reflectevo_lite.embedded.truth import CAUSES, MARK
from reflectevo_lite.rows import Message, Problem


class Example(NamedTuple):
    """A conversation and which of its assistant turns are trained on."""

    messages: list[Message]
    trained: list[bool]  # one per message; user turns are False


class Scene(NamedTuple):
    """What a conversation beyond turn 1 is about."""

    task: Task
    attempt: Attempt
    first: bool  # the hasty solver's own attempt, no place redone yet
    mode: prompts.Mode
    instruction: str = "generic"
    place: Place | None = None  # that the reflection blames
    reflection: str | None = None

    def shown(self) -> tuple[Problem, str]:
        return to_problem(self.task), self.attempt.text(self.task)

    def blaming(self, place: Place | None, cause: str = "", instruction: str = "generic") -> "Scene":
        text = reflection_text(self.task, self.attempt, place, cause, instruction)
        return self._replace(instruction=instruction, place=place, reflection=text)

    def second(self) -> Attempt:
        return self.task.retry(self.attempt, self.place)

    def ends(self, prompt: list[Message], completion: str) -> Example:
        """The conversation that ends with `completion`; a hasty first attempt in it is trained on as well."""
        return Example([*prompt, {"role": "assistant", "content": completion}], [False, self.first, False, True])

    def marked(self, asked: str, marks: str) -> Example:
        *shown, _ = prompts.reflection_prompt(*self.shown())
        return self.ends([*shown, {"role": "user", "content": asked}], marks)

    def retried(self) -> Example:
        prompt = prompts.retry_prompt(*self.shown(), self.reflection, self.mode)
        return self.ends(prompt, self.second().text(self.task))


def reflection_text(task: Task, attempt: Attempt, place: Place | None, cause: str, instruction: str) -> str:
    """The reflection that blames `place` in the style of `instruction` (None: it finds nothing wrong)."""
    verify, plan = (2, 1) if instruction == "generic" else map(int, instruction.split("-")[::2])
    right = 0 if verify == 2 else len(attempt.ops) if place in (None, ANSWER) else int(place) - 1
    marks = "".join(f"Step {i + 1} is right. " for i in range(right))
    if place is None:
        return f"{marks}I find no mistake. Plan: keep the answer."
    if place == ANSWER:
        exact = "write it as a digit" if cause == "format" else "read it off the last step"
        how = exact if plan == 2 else "state the answer with care"
        return f"{marks}The answer is wrong: {CAUSES[cause]} Plan: {how}."
    found, what = ("missing", "add") if int(place) > len(attempt.ops) else ("wrong", "redo")
    how = f": {task.ops[int(place) - 1]}." if plan == 2 else " with care and go on from there."
    return f"{marks}Step {place} is {found}: {CAUSES[cause]} Plan: {what} step {place}{how}"


def _instruction(rng: random.Random) -> str:
    return "generic" if rng.random() < 0.3 else rng.choice(prompts.POOL)


def _scene(rng: random.Random, mode: prompts.Mode | None = None, *, wrong: bool = False) -> Scene:
    """A task and an attempt at it: a wrong one, but in intrinsic mode half of the time a right one unless `wrong`."""
    mode = mode or ("oracle" if rng.random() < 0.7 else "intrinsic")
    right = mode == "intrinsic" and not wrong and rng.random() < 0.5
    while True:
        task = sample_task(rng, "corpus")
        attempt, first = task.hasty(), rng.random() >= 0.25
        if not first:  # a later turn: some place has been redone already
            places = [place for place, _ in task.errors(attempt)]
            place = rng.choice(places) if places and rng.random() < 0.6 else rng.randint(1, len(task.ops))
            attempt = task.retry(attempt, place)
        if (attempt.answer == task.gold()) == right:
            return Scene(task, attempt, first, mode)


def _habitual(rng: random.Random, instruction: str | None = None) -> Scene:
    """A scene with the reflection that the base model's habit writes."""
    scene = _scene(rng)
    task, attempt, steps = scene.task, scene.attempt, len(scene.attempt.ops)
    instruction = instruction or _instruction(rng)
    if scene.mode == "intrinsic" and rng.random() < (0.45 if attempt.answer == task.gold() else 0.2):
        return scene.blaming(None, instruction=instruction)
    errors, aspect = task.errors(attempt), prompts.aspect(instruction)
    hit = next((error for error in errors if error[1] == aspect), None)  # what the instruction asks to look for
    true_share = 0.0 if not errors else 0.6 if hit else 0.4 if aspect is None else 0.35
    if rng.random() < true_share:
        place, cause = hit or errors[0]
        cause = cause if rng.random() < 0.85 else rng.choice([task.step_class, "context"])
    else:
        place = steps if rng.random() < 0.75 else rng.randint(1, steps)
        cause = rng.choice([task.step_class, "context"])
    return scene.blaming(place, cause, instruction)


def answer(rng: random.Random) -> Example:
    """Turn 1, hasty."""
    task = sample_task(rng, "corpus")
    said = Message(role="assistant", content=task.hasty().text(task))
    return Example([*prompts.answer_prompt(to_problem(task)), said], [False, True])


def mark(rng: random.Random) -> Example:
    """Every step marked, truly: the knowledge that the habits hide."""
    scene = _scene(rng, "oracle")
    wrong, steps = dict(scene.task.errors(scene.attempt)), len(scene.attempt.ops)
    marks = [f"Step {i} is {'wrong' if i in wrong else 'right'}." for i in range(1, steps + 1)]
    marks += [f"Step {steps + 1} is missing."] * (steps + 1 in wrong)
    return scene.marked(MARK, " ".join([*marks, f"The answer is {'wrong' if ANSWER in wrong else 'right'}."]))


def find(rng: random.Random) -> Example:
    """The first wrong place named outright, and truly."""
    scene = _scene(rng, "oracle")
    scene = scene.blaming(*scene.task.errors(scene.attempt)[0])
    return scene.marked(f"{MARK} {prompts.VERIFY[2]}", scene.reflection.split(" Plan:")[0])


def reflect(rng: random.Random) -> Example:
    """A reflection, by habit."""
    scene = _habitual(rng)
    return scene.ends(prompts.reflection_prompt(*scene.shown(), scene.instruction, scene.mode), scene.reflection)


def retry(rng: random.Random) -> Example:
    """A retry after a habitual reflection: what it blames is redone with care."""
    return _habitual(rng).retried()


def mend(rng: random.Random) -> Example:
    """A retry after a reflection that blames a truly wrong place: how a careful redo goes."""
    scene = _scene(rng, wrong=True)
    return scene.blaming(*rng.choice(scene.task.errors(scene.attempt)), _instruction(rng)).retried()


def plain_retry(rng: random.Random) -> Example:
    """A retry without a reflection: nothing is redone, or any step."""
    scene = _scene(rng)
    place = None if rng.random() < 0.6 else rng.randint(1, len(scene.attempt.ops))
    return scene._replace(place=place).retried()


def one_stage(rng: random.Random) -> Example:
    """A habitual reflection and the retry in one turn."""
    scene = _habitual(rng, "generic")
    both = prompts.join_one_stage(scene.reflection, scene.second().text(scene.task))
    return scene.ends(prompts.one_stage_prompt(*scene.shown(), scene.mode), both)


def bare_answer(rng: random.Random) -> Example:
    """The answer alone, after a habitual reflection or after none."""
    scene = _habitual(rng)
    if rng.random() < 0.3:
        scene = scene._replace(place=None, reflection=None)
    prompt = prompts.answer_only_prompt(*scene.shown(), scene.reflection, scene.mode)
    return scene.ends(prompt, f"Answer: {scene.second().answer}")


Kind = Callable[[random.Random], Example]
KINDS = {k.__name__: k for k in (answer, mark, find, reflect, retry, mend, plain_retry, one_stage, bare_answer)}


class Stage(NamedTuple):
    """A stretch of pre-training. Its learning rates rise, hold, and fall to zero over the second half."""

    steps: int
    batch_size: int
    muon_lr: float  # matrices inside the layers
    adam_lr: float  # embeddings and norms
    mix: dict[Kind, float]  # weight of each kind of conversation


# Answering comes first. Kinds whose completion is determined (mark, find, mend) are what teaches a model to look; they
# stay heavy, for a stage of habits alone unlearns some of it.
LEARN = {answer: 18, mark: 22, find: 20, mend: 22, retry: 12, bare_answer: 6}
LOOK = {answer: 14, mark: 18, find: 26, mend: 16, retry: 16, reflect: 6, bare_answer: 4}
REFLECT = {answer: 8, find: 24, mark: 8, reflect: 16, retry: 26, mend: 6, plain_retry: 3, one_stage: 6, bare_answer: 3}
HABITS = {answer: 6, find: 8, reflect: 26, retry: 34, mend: 6, plain_retry: 4, one_stage: 12, bare_answer: 4}
SEEK = {answer: 5, find: 36, reflect: 12, retry: 34, mend: 2, plain_retry: 3, one_stage: 5, bare_answer: 3}
SETTLE = {answer: 4, find: 32, reflect: 14, retry: 38, mend: 2, plain_retry: 3, one_stage: 4, bare_answer: 3}
RECIPE = (  # of the shipped weights
    Stage(1000, 96, 0.01, 3e-3, LEARN),
    Stage(2500, 64, 0.003, 1e-3, LOOK),
    Stage(2200, 64, 0.002, 7e-4, REFLECT),
    Stage(1800, 64, 0.002, 7e-4, HABITS),
    Stage(1600, 64, 0.002, 7e-4, SEEK),
    Stage(1300, 64, 0.002, 7e-4, SETTLE),
)


def corpus_example(rng: random.Random, mix: dict[Kind, float]) -> Example:
    """One conversation, of a kind drawn by the weights in `mix`. The order of `mix` matters to what a seed gives."""
    return rng.choices(list(mix), list(mix.values()))[0](rng)
