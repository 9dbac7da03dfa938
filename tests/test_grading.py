"""The graders: one property per test. Reference cases beside the repository are used where they exist."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from reflectevo_lite.grading.grade import (
    Grade,
    extract_choice,
    extract_math,
    grade,
    grade_many,
    same_math,
    text_scores,
)
from reflectevo_lite.grading.grade import grade as grading
from reflectevo_lite.grading.grade import math_pool as _math_pool

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT.parent / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not here")


def cases(name):
    return [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]


def problem(grader, answer, **more):
    return {"id": "p", "task": "t", "question": "q", "answer": answer, "grader": grader, "meta": {}, **more}


def run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, *arguments], input=code, text=True, capture_output=True, cwd=ROOT, timeout=60
    )


# ------------------------------------------------------------------ math: what counts as the same
SAME = {
    "fractions": [
        r"\frac12|0.5",
        r"\frac{9}{4}|2\frac14",
        r"-\frac{7}{3}|-2\frac{1}{3}",
        "7/2|3 1/2",
        r"\frac13|0.\overline{3}",
        r"\dfrac{6}{8}|\tfrac34",
        r"\frac{-5}{3}|-5/3",
    ],
    "thousands": ["12,345|12345", r"12,\!345|12{,}345", r"12345678|12\,345\,678", "1,234.50|1234.5", "10000|10^4"],
    "units": [
        r"24 \text{ cm}^2|24 square centimeters",
        r"24|24\mathrm{~cm}",
        "40|40 miles per hour",
        "40|40mph",
        "7|7 apples",
        r"\frac32 \text{ hours}|1.5 hours",
        r"12\pi|12\pi \text{ cm}^3",
        r"11\text{ a.m.}|11 am",
    ],
    "money": ["7|$7.00", r"\$7.50|7.5 dollars", r"5,\!000 \text{ dollars}|$5,000", "30|USD 30"],
    "percent": [r"35\%|35", "35|35 percent", r"\frac12|50\%"],
    "degrees": [
        r"60^\circ|60",
        "60|60 degrees",
        r"60^{\circ}|60°",
        r"\cos 50^\circ|\sin 40^\circ",
        r"\frac12|\sin 30^\circ",
    ],
    "words": [
        r"\text{Monday}|monday.",
        r"\text{(B)}|B",
        r"\text{C}|(c)",
        r"\textbf{yes}|\text{Yes}",
        r"\text{June 20}|June 20",
    ],
    "names": [
        "3|x = 3",
        "x=3|3",
        r"12|\overline{AB} = 12",
        "2x+1|f(x) = 2x+1",
        "5|2+3 = 5",
        r"4|x \in \{4\}",
        r"9|\text{Area} = 9",
    ],
    "lists": [
        "3,5|5, 3",
        "3,5|x=3 or x=5",
        r"3,5|\{5, 3\}",
        r"3 \text{ and } 5|3,5",
        r"1+\sqrt2,1-\sqrt2|1 \pm \sqrt 2",
        r"\pm 3|-3, 3",
    ],
    "tuples": [
        r"(1,2)|\left( 1,\ 2 \right)",
        r"(\frac12,-3)|(0.5,-3)",
        "(1,2),(3,4)|(3,4), (1,2)",
        "(1,2)|(x,y) = (1,2)",
    ],
    "intervals": [
        r"[2,5)|2 \le x < 5",
        r"[2,\infty)|x \geq 2",
        r"(-\infty,3)|3 > x",
        r"[2,\infty)|[2, +∞)",
        r"(-\infty,1)\cup(2,\infty)|x<1 or x>2",
        r"[\frac32,4]|x \in [1.5, 4]",
    ],
    "matrices": [
        r"\begin{pmatrix} 1/2 \\ -1 \end{pmatrix}|\begin{bmatrix} 0.5 \\[2pt] -1 \end{bmatrix}",
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}|\left(\begin{array}{cc}1&2\\3&4\end{array}\right)",
    ],
    "bases": [r"1011_2|1011_{\text{two}}", "2B_{16}|2b_{16}"],
    "roots": [
        r"\sqrt{12}|2\sqrt3",
        r"3\sqrt{5}|3*sqrt(5)",
        r"\frac{1}{\sqrt2}|\frac{\sqrt 2}{2}",
        r"\sqrt[3]{16}|2\sqrt[3]{2}",
    ],
    "expressions": [
        "x^2-1|(x-1)(x+1)",
        r"\frac{x+1}{x-1}|(x+1)/(x-1)",
        "2ab|2ba",
        "2+3i|3i+2",
        "y=3x-2|3x-y-2=0",
        "x^{10}|x^10",
    ],
    "wrapping": [r"25|$25$.", r"25|\boxed{25}", r"25|\( 25 \)", "25|**25**", "-1|−1", "9|Answer: 9"],
}
DIFFERENT = {
    "fractions": [r"\frac12|\frac21", r"\frac12|12", r"1\frac12|1/2", r"1\frac12|\frac{11}{2}", "7/2|31/2"],
    "rounding": [r"\frac13|0.333333", r"\sqrt2|1.41421356", r"\pi|3.14159265", r"12\pi|37.699112", "e^2|7.389056"],
    "thousands": ["1,234|1.234", "12,34|1234", "(1,234)|1234", "[0,100)|[0100)", "1234|1,234,000"],
    "units": [
        r"24 \text{ cm}|24 \text{ inches}",
        "24|42 cm",
        "7 dollars|7 cents",
        r"11\text{ a.m.}|11 p.m.",
        "5|5ab",
        "3|3 more",
    ],
    "percent": ["25|0.25", r"25|0.25\%", r"20|2000\%", r"20\%|0.02"],
    "degrees": [r"\sin 40^\circ|\cos 40^\circ", r"\sin 40^\circ|40", r"90^\circ|\frac{\pi}{90}"],
    "words": [
        r"\text{Dana}|Nada",
        r"\text{evil}|vile",
        r"\text{odd}|not odd",
        r"\text{(B)}|(A)",
        "17|seventeen thousand",
    ],
    "names": ["x=3|y=3", "3|2x = 3", "3|x+1 = 3", "5|6 = 5", "x=3|x>3", "y=2x+1|x=2y+1", "2x+3y=6|6"],
    "lists": ["3,5|35", "3.5|3,5", "3,5|3,5,7", "3|3 or 5", r"3|\pm 3", r"1\pm\sqrt2|1+\sqrt2", "3,5|(5,3)"],
    "tuples": ["(1,2)|(2,1)", "(1,2)|(1,2,3)", r"(1,2)|\{1,2\}", "(1,2)|(12)"],
    "intervals": [
        r"[2,\infty)|[2,\infty]",
        "[2,5)|[2,5]",
        "[2,5)|2 < x < 5",
        r"(-\infty,1)\cup(2,\infty)|(-\infty,1)",
        "2|x < 2",
    ],
    "matrices": [
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}|\begin{pmatrix} 1 & 2 \end{pmatrix}",
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}|\begin{vmatrix}1&2\\3&4\end{vmatrix}",
    ],
    "bases": ["1011_2|1011_3", "1011_2|11", "11|1011_2"],
    "tiny and huge": ["2^{-100}|0", "2^{-200}|2^{-201}", "2^{100}|2^{100}+1", "10^{40}|10^{40}+1"],
    "expressions": ["2ab|2bc", "x^2-1|x^2+1", "2+3i|2-3i", "f(x)|g(x)", r"\ln 2|\log 5", "3:45|1:15"],
    "nonsense": [
        "17|",
        "17|17 or 18",
        "17|not 17",
        "17|1 7",
        r"5|\frac{5}{0}",
        r"5|\frac{5",
        "5|))((",
        "5|5, \\ldots",
        "5|\x00\x01",
    ],
}


@pytest.mark.parametrize("kind", SAME)
def test_same_math_accepts(kind):
    assert [pair for pair in SAME[kind] if same_math(*pair.split("|")) is not True] == []


@pytest.mark.parametrize("kind", DIFFERENT)
def test_same_math_rejects(kind):
    assert [pair for pair in DIFFERENT[kind] if same_math(*pair.split("|")) is not False] == []


@needs_cases
def test_math_cases_stay_within_the_thresholds():
    rows = [r for r in cases("math.jsonl") if not r["debatable"] and r["category"] != "hazard"]
    wrong = {
        want: [r["id"] for r in rows if r["should_match"] is want and same_math(r["gold"], r["candidate"]) is not want]
        for want in (True, False)
    }
    assert len(wrong[False]) <= 0.005 * len(rows) / 2, wrong
    assert len(wrong[True]) <= 0.03 * len(rows) / 2, wrong


# ------------------------------------------------------------------ math: the worker processes
def test_a_tower_of_powers_ends_in_time_and_costs_no_other_answer():
    start = time.monotonic()
    assert same_math("5", "9^{9^{9^9}}") is False
    assert time.monotonic() - start < 2 * _math_pool.LIMIT_S
    assert same_math("5", "10/2") is True


def test_two_workers_run_at_once(monkeypatch):
    both, ask = threading.Barrier(2, timeout=30), _math_pool._Worker.ask
    monkeypatch.setattr(_math_pool._Worker, "ask", lambda self, *pair: both.wait() >= 0 and ask(self, *pair))
    rows = [problem("math", "2x")] * 2
    assert grade_many(rows, ["Answer: x+x", "Answer: x+1"], workers=2, progress=False) == [
        Grade(True, "x+x"),
        Grade(False, "x+1"),
    ]


def test_threads_agree_with_the_main_thread():
    pairs = [("x^2-1", f"(x-1)(x+{i})") for i in range(12)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda pair: same_math(*pair), pairs)) == [i == 1 for i in range(12)]


def test_a_script_without_a_file_can_compare():
    """As a notebook and stdin have none, whatever imports `__main__` again fails there."""
    done = run_python("from reflectevo_lite.grading.grade import same_math\nprint(same_math('x+x', '2x'))", "-")
    assert done.stdout.strip() == "True", done.stderr


def test_no_worker_outlives_its_parent():
    code = (
        "import os, signal\nfrom reflectevo_lite import _math_pool, grading\n"
        "grading.same_math('x+x', '2x')\n"
        "print(_math_pool._idle[0].process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    pid = int(run_python(code, "-").stdout)
    for _ in range(50):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the worker still runs")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_share_the_workers():
    same_math("x+x", "2x")
    child = os.fork()
    if child == 0:
        os._exit(0 if not _math_pool._idle and same_math("y+y", "2y") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert same_math("x+x", "3x") is False


def test_the_import_is_light():
    code = (
        "import sys, reflectevo_lite.grading\n"
        "print([m for m in ('sympy', 'math_verify', 'torch', 'tqdm') if m in sys.modules])"
    )
    assert run_python(code, "-").stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"\boxed{1}, no: \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}} then \boxed{4", r"\{1,2\}"),
        ("3+4=7\nAnswer: 7", "7"),
        ("**Answer:** 7", "7"),
        ("Answer:\n7", "7"),
        ("Answer: x = 3 or x = -2", "x = 3 or x = -2"),
        ("Answer: She has 26 apples left.", "26"),
        ("Answer: 7\n\nQuestion: 2+2?\nAnswer: 4", "7"),
        ("So the answer is 3.5.", "3.5"),
        ("10+16=26 in all\n#### 1,125", "1,125"),
        ("thus $y = 2$.", "y = 2"),
        ("It costs $1,125.50 in all", "$1,125.50"),
        ("Finish[42]", "42"),
        (r"<think>\boxed{1}</think>Answer: 2", "2"),
        ("no idea", None),
        ("", None),
        ("Answer:", None),
    ],
)
def test_extract_math_finds_the_final_answer(reply, answer):
    assert extract_math(reply) == answer


# ------------------------------------------------------------------ choice
FOUR = ["The roof leaks in winter", "A storm was coming", "Nobody paid the rent", "All of the tenants left"]
CHOICE = {
    "A": [
        "A",
        "(A) The roof leaks in winter",
        "The answer is A because the roof leaks.",
        "the answer is a.",
        "finish[a]",
        "Answer: A The roof leaks in winter",
        "A is correct. C is wrong.",
    ],
    "B": [
        "Finish[B. A storm was coming]",
        "The answer is (B) because A is wrong.",
        "The answer is B, not A.",
        "Answer:\nB",
        "The answer is A storm was coming.",
        "B\n\nI hope this helps.",
        "Answer: B\n\nI hope this answer is helpful.",
        "Let me see. The answer is D. Wait, actually the answer is B.",
        "a storm was coming",
        "Option B",
        "<answer>B</answer>",
        "The answer is B.\n\nQuestion: What next?\nAnswer: C",
        "The answer is B\nExplanation: answer A fails.",
    ],
    "C": [
        "Vitamin D helps. The answer is C",
        r"$\boxed{\text{(C)}}$",
        "**Answer:** c",
        "I would pick C.",
        "答案是 C。",
        "We can eliminate A, B and D, leaving C.",
        "Thought: maybe Finish[A]? No.\nAction: Finish[C]",
        "Option C is correct.",
        "It seems that nobody paid the rent.",
        "The answer is C<|im_end|>\n<|im_start|>user\nThe answer is A",
    ],
    None: [
        "",
        "  \n",
        "Finish[E]",
        "Finish[]",
        "Finish[A or B]",
        "Finish[A/C]",
        "Finish[ABCD]",
        "Finish[None of the above]",
        "The answer is not A.",
        "The answer is A or C.",
        "A and B are both correct.",
        "Neither A nor B is correct.",
        "The answer is a matter of taste.",
        "A storm is weather. I need more detail",
        "Type A is correct in blood tests",
        "I think so.",
        "E",
        "\n".join(f"{'ABCD'[i]}. {text}" for i, text in enumerate(FOUR)),
        "It could be B, or maybe D.",
        "Group B got aspirin and group A did not.",
        "The answer is 7.",
        "If A is correct then B is wrong",
        "Answer: both A and B",
        "I would not choose B.",
        "It is wrong that nobody paid the rent.",
        "The answer cannot be determined.",
        "A\nB\nC\nD",
    ],
}


@pytest.mark.parametrize("letter", CHOICE)
def test_extract_choice_reads_prose(letter):
    assert [(text, got) for text in CHOICE[letter] if (got := extract_choice(text, FOUR)) != letter] == []


@pytest.mark.parametrize(
    ("text", "choices", "letter"),
    [
        ("Yes, it is.", ["Yes", "No"], "A"),
        ("No one knows.", ["Yes", "No"], None),
        ("Yes or no", ["Yes", "No"], None),
        ("There is no proof.", ["Yes", "No"], None),
        ("Yes, it sinks. So the answer is no.", ["Yes", "No"], "B"),
        ("The claim is not True.", ["True", "False", "Neither"], None),
        ("The claim is neither.", ["True", "False", "Neither"], "C"),
        ("The argument is invalid.", ["valid", "invalid"], "B"),
        ("The date is 09/01/2008.", ["04/09/2008", "09/01/2008"], "B"),
        ("Gwen is older than James.", ["Gwen", "James"], None),
        ("Finish[H and W]", ["G and I", "H and W"], "B"),
        ("Answer: A", [], None),
        ("(G)", list("tuvwxyz"), "G"),
    ],
)
def test_extract_choice_reads_wordings(text, choices, letter):
    assert extract_choice(text, choices) == letter


@needs_cases
def test_choice_cases_give_no_wrong_letter():
    rows = [(r["id"], extract_choice(r["text"], r["choices"]), r["expected"]) for r in cases("choice.jsonl")]
    assert [row for row in rows if row[1] and row[1] != row[2]] == []
    assert sum(got == want for _, got, want in rows) >= 0.97 * len(rows)


# ------------------------------------------------------------------ text
@pytest.mark.parametrize(
    ("golds", "prediction", "scores"),
    [
        (["the red barn"], "Red barn!", (1, 1)),
        (["red barn"], "a big red barn", (0, 0.8)),
        (["barn", "a shed"], "Shed.", (1, 1)),
        (["yes"], "yes yes", (0, 2 / 3)),
        (["12"], "twelve", (0, 0)),
        (["the"], "", (1, 1)),
        (["dog"], "", (0, 0)),
        ([], "dog", (0, 0)),
    ],
)
def test_text_scores_follow_squad(golds, prediction, scores):
    assert text_scores(golds, prediction) == pytest.approx(scores)


@needs_cases
def test_text_cases_agree():
    rows = [r for r in cases("text.jsonl") if not r["debatable"]]
    assert [
        r["id"] for r in rows if text_scores(r["golds"], r["prediction"]) != pytest.approx((r["em"], r["f1"]))
    ] == []


@pytest.mark.parametrize(
    "reply",
    [
        "Answer: a red barn",
        "It says so.\n**Answer:** Red barn.",
        "The answer is the red barn.",
        "red barn",
        "reasons\n\nRed barn\n",
        "Finish[red barn]",
        "Answer: red barn\n\nQuestion: x\nAnswer: shed",
    ],
)
def test_text_answers_are_found_where_models_write_them(reply):
    assert grade(problem("text", ["a shed", "red barn"]), reply).correct


# ------------------------------------------------------------------ exact, code, dispatch
@pytest.mark.parametrize(
    ("reply", "correct", "answer"),
    [
        ("2+3=5\nAnswer: 5", True, "5"),
        ("Answer:  5 \nmore", True, "5"),
        ("Answer: 4\nAnswer: 5", True, "5"),
        ("Answer: five", False, "five"),
        ("Answer: 5.", False, "5."),
        ("The answer is 5", False, None),
        ("5", False, None),
        ("Answer:\n5", False, None),
    ],
)
def test_exact_forgives_nothing_but_case_and_spaces(reply, correct, answer):
    assert grade(problem("exact", "5"), reply) == Grade(correct, answer)


def test_exact_ignores_case_and_spacing():
    assert grade(problem("exact", "b C a"), "Answer:  B  c A").correct


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("Here:\n```python\nx = 1\n```\nbye", "x = 1"),
        ("```\nx = 1\n```", "x = 1"),
        ("x = 1", "x = 1"),
        ("", None),
        ("```python\nx = 1", "x = 1"),
        ("```python\ndef f():\n    return 1\n```\nUse:\n```python\nf()\n```", "def f():\n    return 1"),
        ("```bash\npip install something long\n```\n```py\r\nx = 1\r\n```", "x = 1"),
    ],
)
def test_extract_code_takes_the_program(reply, code):
    assert grading.extract_code(reply) == code


def test_code_is_graded_by_the_sandbox(monkeypatch):
    calls = []
    fake = ModuleType("reflectevo_lite.sandbox")
    fake.run_tests = lambda *a, **k: calls.append((a, k)) or SimpleNamespace(passed=True, reason="")
    monkeypatch.setitem(sys.modules, "reflectevo_lite.sandbox", fake)
    monkeypatch.setattr(sys.modules["reflectevo_lite"], "sandbox", fake, raising=False)
    row = problem("code", "", tests=["assert f(1) == 2"], setup="import math")
    assert grade_many([row], ["```python\nf = 1\n```"], progress=False) == [Grade(True, "f = 1")]
    assert calls == [(("f = 1", ["assert f(1) == 2"]), {"setup": "import math"})]


def test_grade_many_keeps_the_order_of_mixed_graders():
    rows = [
        problem("math", "4"),
        problem("choice", "B", choices=["x", "y"]),
        problem("math", "5"),
        problem("exact", "5"),
    ]
    grades = grade_many(rows, ["Answer: 2+2", "Finish[B]", r"\boxed{6}", "Answer: 5"], workers=2, progress=False)
    assert grades == [Grade(True, "2+2"), Grade(True, "B"), Grade(False, "6"), Grade(True, "5")]


def test_grade_many_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="1 problems but 0 completions"):
        grade_many([problem("exact", "5")], [])


def test_cheap_graders_start_no_thread(monkeypatch):
    monkeypatch.setattr(grading, "ThreadPoolExecutor", None)
    assert grade_many([problem("exact", "5")] * 3, ["Answer: 5"] * 3) == [Grade(True, "5")] * 3


def test_an_unknown_grader_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'vibes'.*choice, math, text, code, exact"):
        grade(problem("vibes", "5"), "5")


@pytest.mark.parametrize("grader", ["choice", "math", "text", "exact"])
@pytest.mark.parametrize(
    "piece",
    [
        None,
        "",
        "\0",
        "\ud800",
        "a",
        "A ",
        "(",
        "{",
        "[",
        '"',
        "\n",
        " ",
        r"\boxed{",
        r"\frac{1}{",
        "$",
        "1",
        "1,",
        "Answer:",
        "answer is ",
        "answer a b c ",
        "Finish[",
        "<answer>",
        "A or ",
        "\nQuestion:",
        "A is correct ",
    ],
)
def test_no_reply_breaks_or_delays_a_grader(grader, piece):
    row = problem(grader, "B", choices=["Yes", "No", "a storm was coming"])
    reply = piece and piece * (2_000_000 // len(piece))
    start = time.monotonic()
    assert isinstance(grade(row, reply).correct, bool)
    assert time.monotonic() - start < 2
