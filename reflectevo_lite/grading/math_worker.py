r"""Are two short mathematical answers the same? The far side of `grading.same_math`, a process of its own.

Reads `[gold, candidate]` as one JSON line, answers `true` or `false`; ends when its input ends. A light normalisation
takes off what MATH and GSM8K answers wear (units, thousands separators, `x =`, `\text{}`, degrees, percent), the shape
of the answer (list, tuple or interval, matrix, number in a base, word) is compared part by part, and only what is left,
one expression against one expression, goes to math-verify (https://github.com/huggingface/Math-Verify).

Limits: symbolic work has no limit in here: the parent kills this process. Decimals are exact (0.33 is not 1/3).
Different known units are different answers; they are never converted. Unions are compared interval by interval."""

import contextlib
import functools
import json
import logging
import math
import os
import re
import signal
import sys
import unicodedata
import zlib
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

DIGITS = 500  # 2^{-200} is not 2^{-201}; at math-verify's 15 digits it is
MEMORY_BYTES = 4 << 30
MAX_BRACKETS = 200  # of one kind; deeper nesting is no answer
ORPHAN_S = 15  # the system ends a job that outlives its parent (POSIX)

_UNICODE = str.maketrans("−–—÷⟨⟩，、\u00a0′’", "---/(),, ''", "\0") | {0x202F: r"\,", 0x2009: r"\,", 0x221A: "sqrt"}
_COMMANDS = r"×\times ·\cdot ⋅\cdot π\pi ∞\infty ≤\le ≥\ge ≠\neq ℝ\mathbb{R} ∅\emptyset ∪\cup ∈\in ±\pm °^\circ θ\theta"
_UNICODE |= {ord(pair[0]): pair[1:] + " " for pair in _COMMANDS.split()}  # commands need a space after them
for _char in "¼½¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅐⅑⅒":
    _UNICODE[ord(_char)] = r"\frac{" + unicodedata.normalize("NFKC", _char).replace("⁄", "}{") + "}"
_RAISED = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+)|([₀₁₂₃₄₅₆₇₈₉]+)")
_SIGNS = {"lt": "<", "gt": ">", "langle": "(", "rangle": ")", "lbrack": "[", "rbrack": "]"}
_FONT = r"\\(?:(?:text|math)(?:rm|bf|it|sf|tt|normal)|text|mbox|hbox|operatorname\*?)\s*(?=\{)"
_TRIG = r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{?-?\d\}?)?)"


# f' as a name of its own: math-verify sees no primes
_primed = lambda m: m[1] + "_{p" + str(len(re.findall("'|prime", m[2]))) + "}"
# Applied in this order to gold and candidate alike.
_CLEAN = [
    (re.compile(pattern), new)
    for pattern, new in [
        (r"(?i)^\W*(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?(?:final\s+|correct\s+)?answer\s*(?:is|:)\s*:?", ""),
        (r"(?<=\\\\)\[[\d.]+\w\w\]", ""),
        (r"(?<!\\)\\[()\[\]]", ""),
        (r"^[*`\s]+|[*`\s]+$", ""),
        (r"\\?\$|[€£¥₹]|^(?:USD?|Rs\.?)(?=\s*\d)", ""),
        (r"\*\*", "^"),
        (r"\*", r"\\cdot "),
        (r"(?<=\d)(?:\\[,!;:]|\{,\}|,\s*\\!\s*|~|'(?=\d{3}(?!\d)))+(?=\d{3})", ""),  # 12\,345
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\(?:[,;: ]|(?:quad|qquad|displaystyle|limits)(?![a-z]))|~", " "),
        (r"(?<![\w.])(\d+(?:\.\d+)?|\.\d+)[eE]([+-]?\d{1,3})(?![\w.{])", lambda m: f"{Decimal(m[0]):f}"),  # 4.5e-3
        (r"(?:\\ne(?![a-z])|(?<![\d)!])\s*!=)", r"\\neq "),
        (r"\\(?:operatorname\*?|text|mathrm)\s*\{\s*(gcd|lcm)\s*\}|(?<![\\a-z])(gcd|lcm)(?=\s*\()", r"\\\1\2"),
        (r"\\math(?:bb|bf)\s*(?:\{\s*R\s*\}|R)\s*$|(?:\\text\s*\{)?\s*all real numbers\s*\}?$", r"(-\\infty,\\infty)"),
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![a-z])", ""),
        (r"\\([dtc])frac", r"\\frac"),
        (_FONT, r"\\text"),
        (r"(?<=\\text)\s*\{([^{}\d]*,[^{}\d]*)\}", lambda m: "{" + m[1].replace(",", r"},\text{") + "}"),
        (r"\\(?:leq|leqslant)(?![a-z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant)(?![a-z])|>=", r"\\ge "),
        (r"\\([lr]angle|(?:[lg]t|[lr]brack)(?![a-z]))", lambda m: _SIGNS[m[1]]),
        (r"(^|=|\\in(?![a-z]))\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}$", r"\1⦃\2⦄"),
        (r"\\(?:\{|lbrace(?![a-z]))", "⦃"),
        (r"\\(?:\}|rbrace(?![a-z]))", "⦄"),  # braces of a set
        (r"\^\s*\{\s*\\circ\s*\}|\\degrees?(?![a-z])", r"^\\circ"),
        (r"\+\s*\\infty|(?<![\\a-zA-Z])(?:\+\s*)?(?:infinity|infty|inf|oo)(?![a-zA-Z])", r"\\infty"),
        (r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi "),
        (r"(?<!\\)sqrt", r"\\sqrt"),
        (r"\\sqrt\s*(?:\(([^()]*)\)|(\d+))", r"\\sqrt{\1\2}"),
        (r"\\frac\s*(\d)\s*(?=[\d{])", r"\\frac{\1}"),
        (r"\\frac\s*\{([^{}]*)\}\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\^\s*(-?\d+(?:\.\d+)?)", r"^{\1}"),
        (r"(?<![A-Za-z\\])([A-Za-z])('+|\^\{?\s*(?:\\prime\s*)+\}?)(?![A-Za-z])", _primed),  # f' is not f
        (r"(?<![\d.}])(\d+)\s+(\d+)/(\d+)(?!\d)", r"\1\\frac{\2}{\3}"),  # 3 3/8
        (_TRIG + r"\s*[({]?\s*(\d+(?:\.\d+)?)\s*\^\\circ\s*[)}]?", r"\1(\\frac{\2\\pi}{180})"),
        (r"\\text\{\s*(?:and|or)\s*\}|(?<=[^a-zA-Z\\])(?:and|or)(?=[^a-zA-Z])|\\cup(?![a-z])|;", ","),
        (r",(\s*,)+", ","),
        (r"(?<![a-zA-Z])([ap])\.\s?m\b\.?", r" \1m"),
        (r"^\\text\{\s*([-+]?\.?\d[^{}]*)\}$", r"\1"),
        (r"\\varnothing|⦃\s*⦄", r"\\emptyset"),
        (r"^[a-zA-Z]\s*(?:=|\\in)\s*(?=⦃)", ""),
        (r"(?:\^\\circ|\\?%|\\text\{\s*(?:percent|degrees?)\s*\}|(?<=[\d} ])(?:percent|degrees?))", ""),
        (r"(?<=[\d}])\s*\([a-zA-Z][a-zA-Z -]{2,}\)\s*$", ""),  # 17 (seventeen)
        (r"(?:\\\\|[\s.,:])+$|^[\s,:=]+", ""),
    ]
]

_UNIT_LINES = Path(__file__).with_name("units.txt").read_text(encoding="utf-8").splitlines()  # a unit, its other names
_UNITS = {name: names.split()[0] for names in _UNIT_LINES for name in names.split()} | {"sq": "", "cu": ""}
_NOT_UNITS = re.compile(r"\b(?:not|wrong|incorrect|more|less|fewer|least|most|if|when|except|than|plus|minus|times)\b")
_PERCENT, _DEGREE = re.compile(r"%|percent"), re.compile(r"°|\\circ|degree")
_POWER = r"(?:\s*\^\s*\{?\s*\d\s*\}?)?"
_TEXT_UNIT = re.compile(rf"(?<=[\w}})\]])\s*\\text\{{([^{{}}]*)\}}{_POWER}\s*$")
_BARE_UNIT = re.compile(rf"(?:(?<=[\d}})\]])|(?<=\\pi))(\s*)((?:[A-Za-z]+\.?{_POWER}(?:\s*/\s*|\s+|$))+)$")
_NAME = re.compile(r"(?:\\?[A-Za-z]++|[\s{}'|,:]|\([^()=]*\)|_\{?\w++\}?)++")
_EQUALS = re.compile(r"(?<![<>!])=(?![^{}]*\})")  # not the bound of a sum
_LETTERS = re.compile(r"(?<![\\a-z])[a-zA-Z]")  # but of a command
_NOT_NAMES = re.compile(r"\\(?:frac|sqrt|sin|cos|tan|log|ln|cdot|times|pm)")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_FRACTION = re.compile(r"([+-]?)(\d*)\\frac\{([+-]?[\d.]+)\}\{([+-]?[\d.]+)\}|([+-]?[\d.]+)/(-?[\d.]+)")
_BASE = re.compile(r"([+-]?[\dA-Fa-f.]+)_\{?(?:\\text\{)?\s*(\w+?)\s*\}*")
_BASE_WORDS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_BASES = {word: str(base) for base, word in enumerate(_BASE_WORDS, 2)} | {"sixteen": "16"}
_MATRIX = re.compile(r"[(\[]?\s*\\begin\{([pbBv]?)(?:matrix|array)\}(?:\{[lcr|\s]*\})?(.*?)\\end\{\w+\}\s*[)\]]?", re.S)
_BOUND = r"([^<>=,a-zA-Z]*?(?:\\(?:infty|pi|frac|sqrt)[^<>=,a-zA-Z]*?)*?)"
_LESS = r"\s*(<|\\le(?![a-z]))\s*"
_BETWEEN = re.compile(rf"{_BOUND}{_LESS}[a-zA-Z]{_LESS}{_BOUND}")
_ONE_SIDED = (  # `x < 3`, `3 > x`
    re.compile(r"[a-zA-Z]\s*(?P<sign><|>|\\le(?![a-z])|\\ge(?![a-z]))\s*(?P<bound>[^<>=,]+)"),
    re.compile(r"(?P<bound>[^<>=,]+?)\s*(?P<sign><|>|\\le(?![a-z])|\\ge(?![a-z]))\s*[a-zA-Z]"),
)
_RAYS = {"<": r"(-\infty,%s)", r"\le": r"(-\infty,%s]", ">": r"(%s,\infty)", r"\ge": r"[%s,\infty)"}
_MIRROR = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


def same(gold: str, candidate: str) -> bool:
    """True if `candidate` is the same answer as `gold`, whose form decides what may be left out."""
    if max(text.count(bracket) for text in (gold, candidate) for bracket in "({[") > MAX_BRACKETS:
        return False
    (g, g_unit), (c, c_unit) = _strip_unit(_clean(gold)), _strip_unit(_clean(candidate))
    g_unit, c_unit = g_unit or _sign(gold), c_unit or _sign(candidate)
    if not g or not c or (g_unit and c_unit and g_unit != c_unit) or g.count("'") != c.count("'"):
        return False
    return _same(g, c) or _same_percent(g, c, _PERCENT.search(gold), _PERCENT.search(candidate))


def _same_percent(g: str, c: str, g_percent, c_percent) -> bool:
    """`50%` is a half; but 0.5 is not what 50 asks for, as a question for percents has a gold above 1."""
    values = [_number(g), _number(c)]
    if bool(g_percent) == bool(c_percent) or None in values:
        return False
    percent, plain = values if g_percent else values[::-1]
    return abs(plain) <= 1 and percent == 100 * plain


def _clean(text: str) -> str:
    """The answer without dress: delimiters, spacing commands, fonts, unicode, percent and degree signs."""
    text = _RAISED.sub(lambda m: ("^{%s}" if m[1] else "_{%s}") % unicodedata.normalize("NFKC", m[0]), text)
    text = text.translate(_UNICODE).strip()
    text = re.sub(r"^.{0,40}?\\(?:f?boxed|framebox)\s*\{(.*)\}[\s$.\])\\*]*$", r"\1", text, flags=re.S)
    for pattern, new in _CLEAN:
        text = pattern.sub(new, text).strip()
    text = re.sub(r"\\(gcd|lcm)\s*\{?\(?([^(){}]*)\)?\}?", _divisor, text)
    return _thousands(re.sub(r"(\d*)\.(\d*)\\(?:overline|bar)\s*\{(\d+)\}", _repeating, text))


def _divisor(m: re.Match) -> str:
    """`gcd(12, 8)` as 4, and one of letters as a name: math-verify takes every gcd of letters for 1."""
    args = sorted(_squeeze(part) for part in m[2].split(","))
    if all(re.fullmatch(r"-?\d{1,300}", arg) for arg in args):
        return str(getattr(math, m[1])(*map(int, args)))
    return f"Q_{{{zlib.crc32(' '.join([m[1], *args]).encode())}}}"


def _thousands(text: str) -> str:
    """`2,125` is a number, `27,93` and `1, 234` are lists, and inside brackets a comma always separates."""
    number = r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)"
    if re.search(r"[(\[⦃]", text):
        return text
    if re.search(r",\s", text):  # a list: its own commas have a space after them
        return re.sub(number + r"(?=,\s|\s*$)", lambda m: m[0].replace(",", ""), text)
    text = re.sub(rf"(?<![\d,.]){number}(?!,)", lambda m: m[0].replace(",", ""), text)
    return text.replace(" ", "") if re.fullmatch(r"[+-]?\d{1,3}( \d{3})+", text) else text


def _repeating(m: re.Match) -> str:
    r"""`0.1\overline{6}` as a fraction."""
    whole, fixed, period = m[1] or "0", m[2], m[3]
    digits = int(whole + fixed + period) - int(whole + fixed)
    return _latex(Fraction(digits, 10 ** len(fixed) * (10 ** len(period) - 1)))


def _latex(value: Fraction) -> str:
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _sign(text: str) -> str | None:
    """The unit that a sign names. A dollar sign is money if escaped, or without a partner to delimit math."""
    if r"\$" in text or text.count("$") == 1:
        return "dollar"
    if m := re.search("[€£¥₹]", text):
        return m[0]
    return "percent" if _PERCENT.search(text) else "degree" if _DEGREE.search(text) else None


def _strip_unit(text: str) -> tuple[str, str | None]:
    """The value without its trailing unit, and the unit's short name (None for none and for unknown ones)."""
    unit = None
    while m := _TEXT_UNIT.search(text):
        unit, text = _unit(m[1]) or unit, text[: m.start()].rstrip(" ,")
    m = _BARE_UNIT.search(text)
    if m and not _NOT_UNITS.search(m[2]):
        words = re.findall(r"[A-Za-z]+", m[2])
        space, longest, known = m[1], max(map(len, words)), all(w in _UNITS for w in words)
        if (space and longest > 2) or (known and (space or longest > 1)):  # not the xy of 2xy
            unit, text = _unit(m[2]), text[: m.start()]
    return text, unit


def _unit(words: str) -> str | None:
    return next((_UNITS[w] for w in re.findall(r"[A-Za-z]+", words) if _UNITS.get(w)), None)


# ------------------------------------------------------------------ shapes
def _same(g: str, c: str) -> bool:
    if (left := _parts(g)) or _parts(c):
        return _same_parts(left, _parts(c), g, c)
    g, c = _inequality(_bare_name(g, c)), _inequality(_bare_name(c, g))
    if _squeeze(g) == _squeeze(c):
        return True
    for read, compare in _SHAPES:
        left, right = read(g), read(c)
        if left or right:
            return compare(left, right, g, c)
    return _same_value(g, c)


def _squeeze(text: str) -> str:
    """Without spaces, but `2 7` stays apart from `27`."""
    return re.sub(r"(?<!\d) +| +(?!\d)", "", text)


def _bare_name(text: str, other: str) -> str:
    r"""Takes off `x =`, `\angle ABC =`, `x \in`; single letters stay where they differ: x=3 is not y=3."""
    (name, rest), (other_name, _) = _name(text), _name(other)
    if name is None or (other_name is None and "=" in other):
        return text
    differs = other_name is not None and name != other_name and max(len(name), len(other_name)) == 1
    return text if differs else rest


def _name(text: str) -> tuple[str | None, str]:
    """`x = 3` as ("x", "3"), `2+3 = 5` as ("", "5"); (None, text) for an equation or no equation."""
    parts = [part.strip() for part in re.split(rf"{_EQUALS.pattern}|\\in(?![a-z])", text)]
    if len(parts) == 2 and re.fullmatch(r"[a-zA-Z]", parts[1]) and not _LETTERS.search(parts[0]):
        parts.reverse()  # 7 = y
    if len(parts) > 1 and _NAME.fullmatch(parts[0]) and not _NOT_NAMES.search(parts[0]):
        return parts[0], parts[-1]
    if len(parts) > 1 and not _LETTERS.search(parts[0]) and _same_value(parts[0], parts[-1]):
        return "", parts[-1]
    return None, text


def _inequality(text: str) -> str:
    r"""`-1 \le x < 4` as `[-1,4)`, `x > 3` as `(3,\infty)`; anything else unchanged."""
    text = text.strip()
    if m := _BETWEEN.fullmatch(text):
        return f"{'(' if m[2] == '<' else '['}{m[1]},{m[4]}{')' if m[3] == '<' else ']'}"
    for pattern in _ONE_SIDED:
        m = pattern.fullmatch(text)
        if m and not re.search(r"(?<![\\a-z])[a-zA-Z](?![a-z])", m["bound"]):
            return _RAYS[m["sign"] if pattern is _ONE_SIDED[0] else _MIRROR[m["sign"]]] % m["bound"]
    return text


def _base(text: str):
    m = _BASE.fullmatch(_squeeze(text))
    return m and (m[1].lower(), _BASES.get(m[2].lower(), m[2]))


def _same_base(left, right, g: str, c: str) -> bool:
    """Digits and base must agree; a candidate may leave the base out, as the question names it."""
    return left == right if left and right else bool(left) and left[0] == _squeeze(c).lower()


def _words(text: str) -> str | None:
    r"""The words of an answer that is a word or a letter in `\text{}` or brackets; None for mathematics."""
    plain = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)
    bare = plain == text and not re.fullmatch(r"\D*[A-Za-z]{4}\D*|\(?[A-Z]\)?", plain)  # xy, 3abc
    if bare or not re.fullmatch(r"[\w\s.,:'’()&/-]+", plain):
        return None
    return " ".join(w for w in re.findall(r"\w+", plain.casefold()) if w not in {"the", "an"}) or None


def _same_words(left, right, g: str, c: str) -> bool:
    plain = [side or " ".join(re.findall(r"\w+", text.casefold())) for side, text in ((left, g), (right, c))]
    return plain[0] == plain[1]


def _split(text: str) -> list[str]:
    """Splits at commas outside all brackets."""
    parts, depth, start = [], 0, 0
    for m in re.finditer(r"[({\[⦃)}\]⦄,]", text):
        depth += (m[0] in "({[⦃") - (m[0] in ")}]⦄")
        if m[0] == "," and depth == 0:
            parts.append(text[start : m.start()].strip())
            start = m.end()
    return [*parts, text[start:].strip()]


def _parts(text: str) -> list[str] | None:
    r"""The elements of a list, a set or `a \pm b`; None for a single answer."""
    m = re.fullmatch(r"⦃(.*)⦄", text.strip(), re.S)
    parts = [p for p in _split(m[1] if m else text) if p]
    parts = [p.replace(r"\pm", sign) for p in parts for sign in ("+-" if p.count(r"\pm") == 1 else " ")]
    return parts if m or len(parts) > 1 else None


def _same_parts(left, right, g: str, c: str) -> bool:
    """Same elements in any order; a set of one is its element."""
    left, right = left or [g], right or [c]
    if len(left) != len(right):
        return False
    for part in left:
        if (match := next((other for other in right if _same(part, other)), None)) is None:
            return False
        right.remove(match)
    return True


def _sequence(text: str) -> list | None:
    """`(a, b)`, `[a, b)` as [brackets, a, b]; None for anything else."""
    text = text.strip()
    if not re.fullmatch(r"[(\[].*[)\]]", text, re.S):
        return None
    inner = _split(text[1:-1])
    depth_ok = not re.search(r"^[^(\[]*[)\]]", re.sub(r"[(\[][^()\[\]]*[)\]]", "", text[1:-1]))
    return [text[0] + text[-1], *inner] if len(inner) > 1 and depth_ok else None


def _matrix(text: str) -> list | None:
    """A matrix as [kind and shape, cell, cell, ...]; None for anything else."""
    if not (m := _MATRIX.fullmatch(text.strip())):
        return None
    rows = [row.split("&") for row in re.split(r"\\\\", m[2]) if row.strip()]
    kind = "det" if m[1] == "v" else "matrix"
    return [f"{kind} {[len(row) for row in rows]}", *(cell for row in rows for cell in row)]


def _same_sequence(left, right, g: str, c: str) -> bool:
    """Same brackets or shape, same elements in the same order."""
    alike = left and right and left[0] == right[0] and len(left) == len(right)
    return bool(alike) and all(map(_same, left[1:], right[1:]))


# (read, compare): the first that reads either side decides
_SHAPES = [(_base, _same_base), (_words, _same_words), (_parts, _same_parts)]
_SHAPES += [(_sequence, _same_sequence), (_matrix, _same_sequence)]


# ------------------------------------------------------------------ one value
def _same_value(g: str, c: str) -> bool:
    left, right = _number(g), _number(c)
    if left is not None and right is not None:
        return left == right
    if ":" in g and ":" in c:  # a time or a ratio
        return g.count(":") == c.count(":") and all(map(_same, g.split(":"), c.split(":")))
    if bool(_EQUALS.search(c)) != bool(_EQUALS.search(g)):
        return False
    return _verify(_exact(g), _exact(c))


def _number(text: str) -> Fraction | None:
    """Integers, decimals, fractions and mixed numbers, exactly; None for anything else."""
    text = _squeeze(text)
    if _NUMBER.fullmatch(text):
        return Fraction(text.rstrip("."))
    if not (m := _FRACTION.fullmatch(text)):
        return None
    try:
        value = Fraction(m[5]) / Fraction(m[6]) if m[5] else int(m[2] or 0) + Fraction(m[3]) / Fraction(m[4])
    except (ValueError, ZeroDivisionError):
        return None
    return -value if m[1] == "-" else value


def _exact(text: str) -> str:
    """Decimals as fractions: floats would be compared with a tolerance, and 1.414214 is not a root of 2."""
    return re.sub(r"\d*\.\d+", lambda m: _latex(Fraction(m[0])), text)


def _verify(gold: str, candidate: str) -> bool:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    # its own units are off: they turn `5ab` into 5
    normal = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    config = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=normal)]
    read = lambda text: parse(rf"\boxed{{{text}}}", config, fallback_mode="no_fallback", parsing_timeout=None)
    parsed = [read(gold), read(candidate)]
    if not all(parsed):
        return False
    left, right = ([_worked_out(value) for value in values] for values in parsed)
    alike = verify(left, right, numeric_precision=DIGITS, timeout_seconds=None, allow_set_relation_comp=True)
    return alike and not _tiny_and_different(left[0], right[0])


def _worked_out(value):
    """Finite sums and products as values, `i` as the imaginary unit, derivatives of letters as names."""
    import sympy

    if not isinstance(value, sympy.Expr):
        return value
    if value.has(sympy.Derivative):  # of one letter by another it would be 0
        value = value.replace(sympy.Derivative, lambda *args: sympy.Symbol(f"D{args}"))
    if isinstance(value, (sympy.Sum, sympy.Product)):
        bounds = [bound for limit in value.limits for bound in limit[1:]]
        if all(not bound.is_Integer or abs(bound) <= 1000 for bound in bounds):
            value = value.doit()
            value = value.xreplace({name: sympy.Symbol(name.name, real=True) for name in value.free_symbols})
    return value.subs({name: sympy.I for name in value.free_symbols if name.name == "i"})


def _tiny_and_different(left, right) -> bool:
    """Whether two numbers near zero differ: at any fixed number of digits 1/900! and 2/900! are both 0."""
    if not all(getattr(value, "is_number", False) for value in (left, right)):
        return False
    small = 0 < abs(left.evalf(15)) < 1e-100
    return bool(small and abs((left / right).evalf(30) - 1) > 1e-20)


# ------------------------------------------------------------------ process
@functools.cache
def _generator(made: str):
    """reasoning-gym's generator, `[task, configuration]` in JSON: its scorer may look at its configuration."""
    import reasoning_gym

    task, config = json.loads(made)
    return reasoning_gym.create_dataset(task, **config)


def _answer(line: str, scored: bool) -> bool:
    try:
        if not scored:
            return same(*json.loads(line))
        made, entry, answer = json.loads(line)
        return bool(_generator(json.dumps(made)).score_answer(answer, entry) == 1.0)
    except Exception:  # whatever sympy raises on nonsense: not the same
        return False


def main() -> None:
    """Says `ready` once math-verify (`scored`: reasoning-gym, whose scorers compute what they read) is imported, then one line for each line."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what sympy prints must not pass for an answer
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ImportError, ValueError, OSError):  # not POSIX, or already lower
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    alarm = getattr(signal, "alarm", lambda seconds: None)  # not handled: the system ends the process
    if scored := "scored" in sys.argv:
        import reasoning_gym  # noqa: F401
    else:
        _verify("1", "x")
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        alarm(ORPHAN_S)
        print(json.dumps(_answer(line, scored)), file=out, flush=True)
        alarm(0)


if __name__ == "__main__":
    main()
