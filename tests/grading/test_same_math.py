"""Mathematics: what counts as the same answer, and where in a reply the answer is."""

import pytest

from reflectevo_lite.grading import same_math
from reflectevo_lite.grading.math_reply import read_math

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
    assert read_math(reply).answer == answer
