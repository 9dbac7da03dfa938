"""MBPP: short Python functions from a one-sentence description, graded by asserts; full and hand-checked set.

https://github.com/google-research/google-research/tree/master/mbpp · hub google-research-datasets/mbpp

Original files mbpp.jsonl (full) and sanitized-mbpp.json; hub rows are the same.

    {"task_id": 11, "text": "Write a function to double a number.", "code": "def twice(n):\\n  return 2 * n",
     "test_list": ["assert twice(2) == 4", "assert twice(0) == 0", "assert twice(-1) == -2"],
     "test_setup_code": "", "challenge_test_list": []}

The sanitized rows have `prompt` for `text` and `test_imports` (a list) for `test_setup_code`.

The description names no function, so the question says name and number of arguments, read off the first assert.
The set's authors show all three asserts, as `shown_tests=3` does; some harnesses show one. All grade, shown or not.
"""

import ast
import builtins
import re

from ..base import REAL, Row, Source, fields, normalise

SHOWN_TESTS = 3  # as the set's authors do
RANGES = {"prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601), "train": range(601, 975)}


def to_problem(row: Row) -> Row | None:
    """Row → problem."""
    unix = lambda text: text.replace("\r\n", "\n")
    tests = [unix(test) for test in row["test_list"]]
    name, arguments = called(tests[0], row["code"])
    count = f" with {arguments} argument{'s' * (arguments != 1)}" if arguments is not None else ""
    text = unix(row.get("text") or row["prompt"]).strip()
    question = f"{text}\n\nName the function `{name}`; it is called{count}."
    setup = unix(row.get("test_setup_code") or "\n".join(row.get("test_imports") or []))
    own = {"native": row["task_id"], "meta": {"function": name}}
    return fields(question, unix(row["code"]), "code", tests=tests, setup=setup, **own)


def called(test: str, code: str) -> tuple[str, int | None]:
    """Name and number of arguments (None if unclear) of what a test calls: one that `code` defines, not a `set`."""
    try:
        nodes = list(ast.walk(ast.parse(test.strip())))
    except SyntaxError:
        nodes = []
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    if not calls:
        return re.search(r"assert\W*(\w+)", test)[1], None
    names = {name for pair in re.findall(r"^(?:def|class)\s+(\w+)|^(\w+)\s*=", code, re.M) for name in pair if name}
    own = [call for call in calls if call.func.id in names]
    best = (own or [call for call in calls if not hasattr(builtins, call.func.id)] or calls)[0]
    plain = not best.keywords and not any(isinstance(a, ast.Starred) for a in best.args)
    return best.func.id, len(best.args) if plain else None


SOURCES = [
    Source(
        name=name, url="https://github.com/google-research/google-research/tree/master/mbpp", licence="CC BY 4.0",
        grader="code", published=published, to_problem=to_problem, tested=REAL,
        rule="task ids 601–974 train, 511–600 validation, 11–510 test, 1–10 prompt (both versions alike)",
        assign=lambda problem: next((s for s, ids in RANGES.items() if int(problem["native"]) in ids), "unused"),
        splits={split: split for split in RANGES},
        # tasks that share a description are one question, however the function is called
        key=lambda problem: normalise(problem["question"].split("\n\nName the function")[0]),
        hub="google-research-datasets/mbpp", configs=[config], hub_parts=["train", "validation", "test", "prompt"],
        raw="https://raw.githubusercontent.com/google-research/google-research/master/mbpp",
        parts={"all": [file]} | dict.fromkeys(RANGES, ()),
    )
    for name, config, file, published in (
        ("mbpp", "full", "mbpp.jsonl", "974: 374 train, 90 validation, 500 test, 10 prompt"),
        ("mbpp:sanitized", "sanitized", "sanitized-mbpp.json", "427: 120 train, 43 validation, 257 test, 7 prompt"),
    )
]  # fmt: skip
