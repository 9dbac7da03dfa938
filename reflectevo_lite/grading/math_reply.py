"""Which mathematical answer does a reply decide for? It is read here; `math_pool.py` compares it."""

import re

from .replies import EMPTY, NO_CUE, Reading, Statement, last_said, own_reply, statements, unwrap

_FUNCTIONS = r"sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|mod|gcd|lcm|max|min|inf|and|or"
_TEXT = r"\\(?:text|mathrm|textbf|mathbf|operatorname|mbox)\s*\{[^{}]*\}"
_TOKEN = re.compile(rf"(?:{_TEXT}|\\[ ,;!]|\\begin\{{.{{1,1500}}?\\end\{{\w+\}}|\S)+", re.S)
_DRESS = re.compile(rf"{_TEXT}|\\begin\{{.*\\end\{{\w+\}}|\\[A-Za-z]+|(?<![A-Za-z])(?:{_FUNCTIONS})(?![A-Za-z])", re.S)
_WORD = re.compile(r"[A-Za-z]{2,}")
_WITH_UNIT = re.compile(r"[-+$€£(]*\d[\d.,]*(?!(?:st|nd|rd|th)\b)[A-Za-z]{1,4}[.,;:!?)]*")
_VALUE = re.compile(r"\d|[π∞√½¼¾⅓⅔ℝ∅]|\\(?!(?:text|quad)\b)[A-Za-z]+")
_OPERATOR = re.compile(r"[=+*/^<>≤≥±×·&|∪∈≠-]+|\\(?:le|ge|leq|geq|ne|neq|in|cup|pm|cdot|times|to)\b")
_FORMULA = re.compile(r"\$\$?((?:\\\$|[^$\n])+)\$\$?|\\[(\[](.{1,2000}?)\\[)\]]", re.S)
_STOP = re.compile(
    r"(?i)\s*[,;(–—-]*\s*\b(?:because|since|where|which|I hope|note that|as (?:we|it|the|there|required|desired))\b"
    r"|(?<!\bapprox)(?<!\bca)[.!?][*\s\"]*(?=\s[A-Z\\$]|\s*$)"
)
_LEAD = re.compile(
    r"(?i)^(?:it is|it's|the (?:point|value|number|interval|line|pair|vector|set|fraction|expression))\s+"
)
_NOTHING = re.compile(
    r"(?i)^\W*(?:wrong|incorrect|correct|right|not|unclear|below|above|as follows|given|found|shown|the same|in the|"
    r"(?!red\b)\w{2,}ed)\b"
)
_REFUSED = re.compile(
    r"(?i)\b(?:(?:cannot|can't|can not) be (?:determined|found|answered|solved|computed|known)|not enough information|"
    r"impossible to (?:say|tell|determine|know|solve)|answer is (?:unknown|undetermined|unclear))\b"
)
_SUM = re.compile(r"[\d\s.,+*/()x×÷·$€£%-]+=\s*([-+$€£]*\d[\d,]*(?:\.\d+)?%?)")
_PARTS = re.compile(  # what may stand between boxes that are parts of one answer
    r"[\s$\\)\]]*(?:,|(?:,\s*)?(?:and|or)\b|(?:,\s*)?\\text\s*\{\s*(?:and|or)\s*\})"
    r"[\s$\\(\[,]*(?:quad)?\s*(?:[a-z]\s*=\s*)?"
)


def read_math(text: str) -> Reading:
    r"""The answer in a reply to a math question, as LaTeX or plain text. What is announced last (`\boxed{}`, "Answer:
    …", "#### …"), else a last line that is an expression, else the last formula or number."""
    text = own_reply(text)
    found = statements(text)
    reading = last_said(text, found, _said)
    if reading.rule == "box":
        return Reading(_joined(text, [s for s in found if s.rule == "box"]), "box")
    if reading.answer is not None or reading.rule != NO_CUE or _REFUSED.search(text[-400:]):
        return reading
    lines = [line.strip() for line in text[-4000:].split("\n") if line.strip()]
    if lines and (line := _expression(unwrap(lines[-1]))):
        return Reading(line, "last line")
    for line in reversed(lines):
        if runs := _runs(line):
            return Reading(runs[-1][1], "last value")
    return Reading(None, NO_CUE if text else EMPTY)


def _joined(text: str, boxes: list[Statement]) -> str:
    """The last box, with those before it that are parts of the same answer."""
    parts = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not _PARTS.fullmatch(text[box.end : parts[0].start]):
            break
        parts.insert(0, box)
    return ", ".join(part.said for part in parts)


def _said(statement: Statement) -> str | None:
    """The value that a statement announces, or None if it announces none."""
    said = statement.said.strip('*_"“”` ')
    if statement.rule == "box":
        return said or None
    if said.startswith(("\\boxed{", "\\fbox")):  # read as a box
        return None
    if end := _STOP.search(said, 1):
        said = said[: end.start()]
    said = unwrap(said.strip('*_"“”` ').rstrip(",;:。"))
    said = _LEAD.sub("", said)
    if not said or _NOTHING.match(said):
        return None
    if line := _expression(said):
        return line
    if len(_WORD.findall(_DRESS.sub("", said))) < 3:
        return said
    tail = re.split(r"\b(?:is|are|equals|be|gives|:)\s+", said)[-1]
    if len(_WORD.findall(_DRESS.sub("", tail))) < 3 and _runs(tail):
        return tail
    runs = _runs(tail) or _runs(said)
    if not runs:
        return None
    return runs[0][1] if not tail[: runs[0][0]].strip("*$ (") and len({run for _, run in runs}) == 1 else runs[-1][1]


def _expression(line: str) -> str | None:
    """A whole line that is mathematics, without its delimiters."""
    tokens = [m[0] for m in _TOKEN.finditer(line)]
    if not tokens or not _VALUE.search(line) or not all(map(_mathy, tokens)):
        return None
    line = re.sub(r"^(?:[-*•]\s+)|[.,;:\s]+$", "", line.strip()) or line
    if m := _FORMULA.fullmatch(line):
        line = (m[1] or m[2]).strip()
    return _result(line)


def _mathy(token: str) -> bool:
    """Whether a word of a sentence is mathematics: it holds no word of two letters, or is a number with its unit."""
    return not _WORD.search(_DRESS.sub(" ", token)) or bool(_WITH_UNIT.fullmatch(token))


def _runs(text: str) -> list[tuple[int, str]]:
    """The expressions in a sentence: runs of mathematical words that hold a value, with their places."""
    runs, run = [], []
    for m in [*_TOKEN.finditer(text), None]:
        if m and _mathy(m[0]):
            run = [] if m[0].endswith(":") else [*run, m]  # the 2 of "Step 2:" labels something
            if not re.search(r"[.;:!?]$", m[0]):
                continue
        if run and (trimmed := _trimmed(run)):
            runs.append((trimmed[0].start(), _undressed(text[trimmed[0].start() : trimmed[-1].end()])))
        run = []
    return [(start, _result(run)) for start, run in runs if run]


def _trimmed(run: list[re.Match]) -> list[re.Match]:
    """Without the words at both ends that are an article, a bullet, a joining word or a lone letter."""
    words = [m[0] for m in run]
    if not (values := [i for i, word in enumerate(words) if _VALUE.search(word)]):
        return []
    first, last = values[0], values[-1]
    while first > 0 and (
        _OPERATOR.search(words[first - 1]) or _OPERATOR.match(words[first]) or words[first - 1][-1] in "(["
    ):
        first -= 1
    while last + 1 < len(run) and (_OPERATOR.match(words[last + 1]) or _OPERATOR.search(words[last][-1])):
        last += 1
    while first < last and re.fullmatch(r"[=:*•>]+|-(?=$)", words[first]) and not (words[first] == "-" and first):
        first += 1
    return run[first : last + 1]


def _undressed(run: str) -> str:
    """Without delimiters, brackets that never close, and the punctuation of the sentence."""
    run = run.strip("*_\"'“”`").rstrip(".,;:!?")
    if m := _FORMULA.fullmatch(run):
        run = (m[1] or m[2]).strip()
    for left, right in ("()", "[]"):
        if run.startswith(left) and right not in run:
            run = run[1:]
        elif run.endswith(right) and left not in run:
            run = run[:-1]
    return re.sub(r"^\\[(\[]|(?<!\\)\\[)\]]$", "", run).strip('*_"“”` ').rstrip(".,;:!?")


def _result(run: str) -> str:
    """`5 x 3 = 15` as 15; equations in letters as they are."""
    return m[1] if (m := _SUM.fullmatch(run)) else run
