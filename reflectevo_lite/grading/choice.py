"""Which option does a reply decide for? Four readers, the most explicit first; the first that reads something decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase as LETTERS

from .replies import own_reply

_UNSURE = "?"  # something was said, and it isn't one option: do not look further
_AFTER_LETTER = re.compile(r"\s*(?:$|[).,:;!?\]}\"'”’—–-]|(?:because|since|as|which|is|due|for|not|but|based|given)\b)")
_LEAD = re.compile(  # what stands between "the answer is" and the answer
    r"(?i)(?:[\s:({\[\"'“‘*]+|(?:the|option|choice|letter|answer|is|that|definitely|clearly|likely|probably|"
    r"most|actually|simply|indeed|therefore|thus|correct|right|best|one|final)\b(?![)\]]))*"
)
_LETTER = re.compile(r"([A-Za-z])(?![\w]|[-'’.][A-Za-z])([)\]}\"'”’]*)")
_JOINED = re.compile(  # a second letter
    r"[,\s]*(?:\b(?:or|and)\b|[/&,+])\s*(?:maybe |perhaps |possibly |also |even )?(?:option |choice )?"
    r"[(\[\"']*[A-Z](?![\w'’])"
)
_REFUSAL = re.compile(r"(?i)\b(none of|neither|both|cannot|can't|unclear|unknown|not enough|impossible|all of)\b")
_SAID = re.compile(
    r"(?i)\bfinish\s*\[(?P<call>[^\]\n]{0,500})"
    r"|(?:\b(?:answer|(?:correct|right|best|final|my) (?:choice|option))"
    r"(?:\s+(?:here|choice|option|letter|to (?:this|the) (?:question|problem)))?"
    r"\s*(?:is|was|must be|would be|should be|will be|has to be|[:：=]|-(?=\s))|答案[是为]?)"
    r"\s*[:：]?[^\S\n]*(?=(?P<said>[^\n]{0,500})(?P<next>\n\s{0,20}[^\n]{0,200})?)"
)
_JUDGED = re.compile(
    r"(?<![\w'’])[(\[\"']{0,3}(?P<a>[A-Z])[)\]\"']{0,3}\s+(?:is|must be|would be|seems|appears|looks)\s+"
    r"(?:to be\s+)?(?:the\s+)?(?:most |best |only |clearly |definitely |indeed )*"
    r"(?:correct|right|answer|best|accurate|appropriate)\b"
)
_CHOSEN = re.compile(
    r"(?i:\b(?:go|going|went) with|\bcho(?:o|se)\w*|\bpick|\bselect|\bopt for|\bsettle on|"
    r"\bleav(?:es|ing)(?: us with)?)"
    r"(?i:\s+(?:only|the|option|choice|answer|letter))*\s*[(\[\"']*(?P<a>[A-Z])(?![\w'’])"
)
_SUBJECT = re.compile(  # what may precede "B is correct"; "type" may not
    r"(?i)(?:^|[:;,(]|\b(?:option|choice|answer|letter|statement|that|so|therefore|thus|hence|think|believe|"
    r"only|then|but|conclude|see))\s*$"
)
_LETTER_LINE = re.compile(r"((?:Option|Choice)\s*:?\s*)?[(\[\"']*([A-Za-z])([)\].:,\"']+|$)\s*(.*)")
_DOUBT = re.compile(r"(?i)\b(?:not|never|whether|if|neither|nor|wrong|incorrect|could|might|may|both)\b|n't\b")


def extract_choice(text: str, choices: Sequence[str]) -> str | None:
    r"""The letter ("A" is the first of `choices`) that a reply decides for, or None if it decides for none.

    The last clear statement counts ("the answer is ...", `Finish[...]`, `\boxed{}`), then "C is correct", "I choose C",
    then a line that is a letter, then the wording of exactly one option. Two letters, a letter that is no option, a
    refusal and an echo of the options give None: a letter is never invented.
    """
    text = _plain(own_reply(text))
    if not text or not choices:
        return None
    for reader in (_read_stated, _read_judged, _read_lines, _read_wording):
        if letter := reader(text, choices):
            return None if letter == _UNSURE else letter
    return None


def _plain(text: str) -> str:
    """Without markdown and LaTeX dress; boxes and answer tags become the paper's `Finish[...]`."""
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]{0,200})\}", r"\1", text)
    text = re.sub(r"\\f?boxed\s*\{([^{}]{0,500})\}", r"Finish[\1]", text)
    text = re.sub(r"(?is)<answer>\s*(.{0,500}?)\s*</answer>", r"Finish[\1]", text)
    return re.sub(r"\*+|__+|`+|\$|(?m:^#+ )", "", text).strip()


def _letter(raw: str, choices: Sequence[str]) -> str:
    return raw.upper() if raw.upper() in LETTERS[: len(choices)] else _UNSURE


def _read_stated(text: str, choices: Sequence[str]) -> str | None:
    """The last of the explicit statements that says something."""
    for m in reversed(list(_SAID.finditer(text))[-50:]):
        if m["call"] is not None:
            return _read_span(m["call"], choices) or _UNSURE
        if letter := _read_span(m["said"] if m["said"].strip() else m["next"] or "", choices):
            return letter
    return None


def _read_span(span: str, choices: Sequence[str]) -> str | None:
    """One option, named by letter or wording at the start of a phrase; _UNSURE for several or a refusal."""
    lead = _LEAD.match(span).end()
    for start in (lead, 0):  # 0: an option may itself begin with "the" or "most"
        opened = span[:start].endswith(("(", "[", "{"))
        phrase = span[start:]
        if letter := _span_letter(phrase, choices, opened) or _span_wording(phrase.lstrip(), choices):
            return letter
    return _UNSURE if _REFUSAL.search(span[:60]) else None


def _span_letter(span: str, choices: Sequence[str], bracket: bool) -> str | None:
    if not (m := _LETTER.match(span)):
        return None
    rest = span[m.end() :]
    if _JOINED.match(rest):  # "G and I" may be an option
        named = [letter for letter, option in zip(LETTERS, choices, strict=False) if _norm(option) == _norm(span)]
        return named[0] if named else _UNSURE
    letter, closed = _letter(m[1], choices), m[2] or bracket or _AFTER_LETTER.match(rest)
    if not closed and (m[1].islower() or m[1] in "AI"):  # the article, the pronoun
        words = letter != _UNSURE and _norm(choices[LETTERS.index(letter)])
        return letter if words and _norm(rest).startswith(words) else None
    return letter


def _norm(text: str) -> str:
    return " ".join(re.findall(r"\w+(?:[.,:/]\d+)*|[^\w\s.,;:!?\"'“”‘’()\[\]]", text.casefold()))


def _span_wording(span: str, choices: Sequence[str], strict: bool = False) -> str | None:
    """The option whose wording the phrase is, or begins with. `strict`: nobody announced an answer here."""
    phrase, best = _norm(span), []
    for letter, option in zip(LETTERS, choices, strict=False):
        words = _norm(option)
        if words and (phrase == words or (phrase.startswith(words + " ") and _ends(span, option, strict))):
            best.append((len(words), letter))
    longest = [letter for size, letter in best if size == max(best)[0]]
    return longest[0] if len(longest) == 1 else None


def _ends(span: str, option: str, strict: bool) -> bool:
    """A long option may go on; after a short one ("no") a comma or the like must tell it from "no one"."""
    if len(option.split()) > 2:
        return True
    rest = span.casefold().lstrip(" \"'“(").removeprefix(option.casefold().strip(" ."))
    if re.match(r"[-'’]\w|\s*,?\s*(?:or|and)\b", rest):
        return False
    comma = "," if not strict or option.casefold() in ("yes", "no", "true", "false", "neither") else ""
    return bool(re.match(rf"[\s\"'”)]*(?:$|[.;:!?{comma}–—]|\([a-z]\)|,?\s*(?:because|since)\b)", rest))


def _read_judged(text: str, choices: Sequence[str]) -> str | None:
    """`C is correct`, `I choose C`: one letter, or none at all."""
    letters = set()
    for m in [*_JUDGED.finditer(text), *_CHOSEN.finditer(text)]:
        before, rest = re.split(r"[.!?\n]", text[max(0, m.start() - 80) : m.start()])[-1], text[m.end("a") :]
        joined = m.re is _JUDGED and re.search(r"(?:\b(?:and|or|nor)|[/,&])\s*$", before, re.I)
        if joined or _JOINED.match(rest):
            return _UNSURE
        named = m.re is _JUDGED or m["a"] not in "AI" or _AFTER_LETTER.match(rest)  # not an article
        if named and not _DOUBT.search(before) and (m.re is _CHOSEN or _SUBJECT.search(before)):
            letters.add(_letter(m["a"], choices))
    return None if not letters else letters.pop() if len(letters) == 1 else _UNSURE


def _read_lines(text: str, choices: Sequence[str]) -> str | None:
    """A first or last line that is a letter, alone or with its option; several letters are an echo."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    marked = [m for line in lines if (m := _LETTER_LINE.match(line))]
    if len({m[2] for m in marked}) > 1:
        return _UNSURE
    if not marked or marked[-1].string not in (lines[0], lines[-1]):
        return None
    _, letter, closing, rest = marked[-1].groups()
    alone = not rest or ")" in closing or re.match(r"(?i)(?:because|since|as|is)\b", rest)
    return _letter(letter, choices) if alone or _span_wording(rest, choices) else None


def _read_wording(text: str, choices: Sequence[str]) -> str | None:
    """The reply is or begins with an option's wording, or its last sentence ends with it or holds it."""
    sentences = [s for s in re.split(r"(?<=[.!?])\s+|\n+", text) if s.strip()]
    found = {_span_wording(phrase, choices, strict=True) for phrase in (text, sentences[0])} - {None}
    found |= {letter for letter, option in zip(LETTERS, choices, strict=False) if _concludes(sentences[-1], option)}
    return found.pop() if len(found) == 1 else None


def _concludes(sentence: str, option: str) -> bool:
    words, said = _norm(option), f" {_norm(sentence)} "
    if not words or _DOUBT.search(said.replace(f" {words} ", " ")):
        return False
    adverb = r"(?:\w+ly |therefore |thus |indeed )?"
    return (len(words.split()) > 2 and f" {words} " in said) or bool(
        re.search(rf" (?:is|are|was|were|be) {adverb}{re.escape(words)} $", said)
    )
