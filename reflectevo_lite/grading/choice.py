"""Which option does a reply decide for? Four readers, the most explicit first; the first that reads decides."""

import functools
import re
from collections.abc import Sequence

from ..prompts import LABELS
from . import cues
from .replies import EMPTY, NO_CUE, NO_OPTION, REFUSED, TWO, Reading, last_said, own_reply, plain_form, statements

_UNSURE, _NONE, _REFUSED = "?", "-", "!"  # several options, one that there is not, none of them: look no further
_AFTER_LETTER = re.compile(
    rf"\s*(?:$|[)\],:;!?|\]}}\"'”—–>。，、：…~#/\\<-]|\.(?!\s*[A-Z]\.)|{cues.W.reasons}\b|\()", re.I
)
_INITIAL = re.compile(rf"\.\s*[A-Z]\.|\.\s+(?!{cues.W.reasons}\b)[a-z]")  # C. S. Lewis, E. coli
_FORMULA = re.compile(r"\s*(?:[=<>+^*/_]|\(\w\)\s*=)|-?\d")
_LEAD = re.compile(rf"(?i)(?:[\s:({{\[\"'“‘<]+|选项|{cues.W.lead}\b(?![)\]]))*")
_LETTER = re.compile(r"([A-Za-z]|[A-Z]{2})(?![\w]|[-'’.][A-Za-z])([)\]}\"'”’>]*)")
_JOINED = re.compile(  # a second letter
    r"[,\s]*(?:\b(?:or|and)\b|[/&,+])\s*(?:maybe |perhaps |possibly |also |even )?(?:option |choice )?"
    r"[(\[\"']*[A-Z](?![\w'’])"
)
_JOINING = re.compile(r"(?:\b(?:and|or|nor)|[/&]|\b[A-Z][)\]]?,)\s*$")
_JUDGED = re.compile(  # the wording may stand between: "(B) the mill is correct"
    r"(?<![\w'’.-])[(\[\"']{0,3}(?P<a>[A-Za-z])(?![\w'’])"
    r"(?:[)\]\"']{0,3}|(?P<w>(?:[)\].:,]+\s+|\s*\(|\s+[–-]\s+)[^.\n?!]{1,120}?))\s+"
    rf"{cues.SEEMS}(?:the\s+|my\s+)?(?:most |best |only |clearly |definitely |indeed |single )*{cues.PRAISED}"
)
_CHOSEN = re.compile(
    rf"(?i:\b{cues.W.pick}(?:\s+(?:only|the|option|choice|answer|letter))*)\s*[(\[\"']*(?P<a>[A-Z])(?![\w'’])"
)
_HEDGED = re.compile(
    rf"(?i:(?<![\w']){cues.HEDGE}[,:：]?"
    rf"(?:\s+(?:that|to be|is|the|answer|option|choice|letter|{cues.HEDGE})[,:]?){{0,4}})"
    r"\s*[:：]?\s*(?P<b>[(\[\"'“]*)(?P<a>[A-Za-z])(?![\w'’])[)\]\"'”]*"
    r"(?=\s*[.!。]?\s*(?:$|\n)|[.!。](?!\s*[A-Z]\.)\s|\s*,?\s*(?:because|since)\b|[).:,]*\s*[(\"'“]?(?P<w>[^\n]{2,200}))"
)
_SUBJECT = re.compile(rf"(?i)(?:^|[:;,(]|\b{cues.W.before}(?:\s+(?:is|the))?)\s*[(\[\"']*$")
_LETTER_LINE = re.compile(
    r"((?:Option|Choice|Answer|Ans|Letter|Solution)\s*[.:]?\s*|[-•>]\s+)?"
    r"([(\[{\"'<]*)([A-Za-z]|[A-Z]{2})(?![\w'’])([)\]}>.:,;!\"'|–—-]*)\s*(.*)",
    re.I,
)
_REASON = re.compile(r"(?i)(?:because|since|as|is|it|this|that|due to|not|the others?|I (?:think|believe|guess))\b")
_LABEL = re.compile(r"[A-Z]\w+(?: \w+)?:\s+")
_MARKED, _MARKUP = re.compile(r"[*_`$\\#]"), re.compile(r"\*+|__+|`+|\$|\\[()\[\]]|(?m:^#+ )")
_SENTENCE = re.compile(r"[.!?。\n]")


def extract_choice(text: str, choices: Sequence[str]) -> str | None:
    r"""The letter ("A" is the first of `choices`, "AA" the 27th) that a reply decides for, or None if for none. The
    last clear statement counts ("the answer is ...", `Finish[...]`, `\boxed{}`), then "C is correct", "I choose C",
    then a line that is a letter, then the wording of exactly one option. Two letters, a letter that is no option, a
    refusal and an echo of the options give None: a letter is never invented."""
    return read_choice(text, choices).answer


def read_choice(text: str, choices: Sequence[str]) -> Reading:
    """The letter, and the rule that read it or why none was read."""
    text = _plain(own_reply(text))
    if not text or not choices:
        return Reading(None, NO_CUE if text else EMPTY)
    options = _options(tuple(map(str, choices)))
    said = lambda s: _read_span(s.said, options) or (None if s.rule == "cue" else _NONE)
    stated = last_said(text, statements(text, cues.RESULTS), said)
    if stated.answer is None and stated.rule == TWO:
        return stated
    rule, letter = stated.rule, stated.answer
    for next_rule, reader in (("verdict", _read_judged), ("last line", _read_lines), ("option text", _read_wording)):
        if not letter:
            rule, letter = next_rule, reader(text, options)
    first, more, _ = text.partition("\n")
    if rule == "last line" and more and letter not in (None, _UNSURE) and _read_lines(first, options) == letter:
        rule = "first line"  # what comes after it may be cut
    unread = {_UNSURE: TWO, _NONE: NO_OPTION, _REFUSED: REFUSED}
    unread[None] = NO_OPTION if cues.ANSWERS.search(text) else NO_CUE
    return Reading(None, unread[letter]) if letter in unread else Reading(letter, rule)


class _Options:
    """The options with their labels and their wordings in one form."""

    def __init__(self, choices: Sequence[str]) -> None:
        self.labels = LABELS[: len(choices)]
        self.texts = [_plain(choice) for choice in choices[: len(self.labels)]]
        self.words = [_norm(text) for text in self.texts]

    def named(self, raw: str) -> str:
        """The label that a letter is, or _NONE."""
        return raw.upper() if raw.upper() in self.labels else _NONE

    def wording(self, letter: str) -> str:
        return self.words[self.labels.index(letter)] if letter in self.labels else ""


_options = functools.lru_cache(maxsize=256)(_Options)  # a problem is answered more than once


def _plain(text: str) -> str:
    """Without the dress of markdown and LaTeX; replies and options alike."""
    text = plain_form(text)
    if "\\" in text:
        text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]{0,200})\}", r"\1", text)
    return (_MARKUP.sub("", text) if _MARKED.search(text) else text).strip()


def _norm(text: str) -> str:
    return " ".join(re.findall(r"\w+(?:[.,:/]\d+)*|[^\w\s.,;:!?\"'“”‘’()\[\]{}]", text.casefold()))


# ------------------------------------------------------------------ what a phrase names
def _read_span(span: str, options: _Options) -> str | None:
    """One option, named by letter or wording at the start of a phrase; _UNSURE for several, _REFUSED for none."""
    if len(span) == 1 and span in options.labels and span.casefold() not in options.words:
        return span
    lead = _LEAD.match(span).end()
    for start in dict.fromkeys((lead, 0)):  # 0: an option may itself begin with "the" or "most"
        opened = span[:start].rstrip("\"'").endswith(("(", "[", "{", "<"))
        if letter := _phrase(span[start:].lstrip(), options, opened):
            return letter
    if (m := _LABEL.match(span)) and not cues.DOUBT.search(m[0]):  # "The answer is: Direction: Up"
        named = [x for x, words in zip(options.labels, options.words, strict=True) if words == _norm(span[m.end() :])]
        if len(named) == 1:
            return named[0]
    return _REFUSED if cues.REFUSAL.search(span[:60]) else None


def _phrase(phrase: str, options: _Options, opened: bool) -> str | None:
    """By wording where the letter only begins it ("C. S. Lewis"), else by letter, else by wording."""
    letter, wording = _span_letter(phrase, options, opened), _span_wording(phrase, options)
    if wording and letter and letter != wording:
        alone = len(options.wording(wording).split()) == 1
        if letter in options.labels and _follows(phrase, letter, options):
            return letter
        return _UNSURE if alone and letter in options.labels else wording
    return letter or wording


def _follows(phrase: str, letter: str, options: _Options) -> bool:
    """Whether the wording of a letter's option follows it: `B. A. A. Milne`."""
    words = options.wording(letter)
    return bool(words) and (_norm(phrase[len(letter) :]) + " ").startswith(words + " ")


def _span_letter(span: str, options: _Options, bracket: bool) -> str | None:
    m = _LETTER.match(span)
    if not m or (len(m[1]) == 2 and m[1] not in options.labels):
        return None
    rest = span[m.end() :]
    letter = options.named(m[1])
    if _JOINED.match(rest):  # "G and I" may be an option
        return None if _norm(span) in options.words else _UNSURE
    if _FORMULA.match(rest):
        return None
    other = len(rest) > 3 and _span_wording(re.sub(r"^[\s.:,–—-]+", "", rest), options, strict=True)
    if other and other != letter and letter in options.labels and len(options.wording(other)) > 1:
        return _UNSURE  # the letter of one option with the wording of another
    followed = _follows(span, letter, options)
    if _INITIAL.match(rest) and not followed and not m[2]:
        return None
    closed = m[2] or bracket or _AFTER_LETTER.match(rest)
    if not closed and (m[1].islower() or m[1] in "AI"):  # the article, the pronoun
        return letter if followed else None
    return letter


def _span_wording(span: str, options: _Options, strict: bool = False) -> str | None:
    """The option whose wording the phrase is, or begins with. `strict`: nobody announced an answer here."""
    phrase, best = _norm(span), []
    for letter, option, words in zip(options.labels, options.texts, options.words, strict=True):
        if not words or not phrase.startswith(words):
            continue
        if phrase == words or (phrase[len(words)] == " " and _ends(span, option, strict)):
            best.append((len(words), letter))
    if len(best) < 2:
        return best[0][1] if best else None
    longest = [letter for size, letter in best if size == max(best)[0]]
    return longest[0] if len(longest) == 1 else None


def _ends(span: str, option: str, strict: bool) -> bool:
    """A long option may go on; after a short one ("no") a comma or the like must tell it from "no one"."""
    if len(option.split()) > 2:
        return True
    rest = span.casefold().lstrip(" \"'“([{<").removeprefix(option.casefold().strip(" ."))
    if re.match(r"[-'’]\w|\s*,?\s*(?:or|and)\b", rest):
        return False
    comma = "," if not strict or option.casefold() in ("yes", "no", "true", "false", "neither") else ""
    return bool(re.match(rf"[\s\"'”)\]}}>]*(?:$|[.;:!?|。{comma}–—]|\([a-z]\)|,?\s*(?:because|since)\b)", rest))


# ------------------------------------------------------------------ the readers after statements
def _read_judged(text: str, options: _Options) -> str | None:
    """`C is correct`, `I choose C`, `most likely C`: one letter, or none at all."""
    letters = set()
    for m in [m for pattern in (_JUDGED, _CHOSEN, _HEDGED) for m in pattern.finditer(text)]:
        before = _SENTENCE.split(text[max(0, m.start() - 80) : m.start()])[-1]
        rest = text[m.end("a") :]
        if _JOINED.match(rest) or (m.re is _JUDGED and _JOINING.search(before)):
            return _UNSURE
        if cues.DOUBT.search(before) or not _names(m, before, rest, options):
            continue
        letters.add(options.named(m["a"]))
    return None if not letters else letters.pop() if len(letters) == 1 else _UNSURE


def _names(m: re.Match, before: str, rest: str, options: _Options) -> bool:
    """Whether the letter of a match is an option and no article, pronoun, blood group or initial."""
    if m.re is _CHOSEN:
        return m["a"] not in "AI" or (bool(_AFTER_LETTER.match(rest)) and not _FORMULA.match(rest))
    words = _norm(m["w"] or "")
    if m.re is _JUDGED:
        return bool(_SUBJECT.search(before)) and (not words or words == options.wording(options.named(m["a"])))
    if words and not _follows(m["a"] + " " + m["w"], options.named(m["a"]), options):
        return False
    return (m["a"].isupper() and (m["a"] != "I" or bool(m["b"]))) or bool(m["b"]) or bool(words)


def _read_lines(text: str, options: _Options) -> str | None:
    """A first or last line that is a letter, alone or with its option; several letters are an echo."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    marked = [m for line in lines if (m := _LETTER_LINE.match(line)) and (m[4] or not m[5] or m[5][0] == "(" or m[1])]
    marked = [m for m in marked if len(m[3]) == 1 or m[3] in options.labels]
    if len({m[3].upper() for m in marked}) > 1:
        return _UNSURE
    if not marked or marked[-1].string not in (lines[0], lines[-1]):
        return None
    prefix, opening, letter, closing, rest = marked[-1].groups()
    if re.search(rf"(?:[.;:]|^)\s*\((?!{letter}\))[a-z]\)\s|(?:[.;]\s+)(?!{letter}\b)[A-Z][).]\s", rest):  # (a) … (b) …
        return _UNSURE
    whole = (prefix or "") + opening + letter + closing + " " + rest
    if (wording := _span_wording(whole, options)) and len(options.wording(wording).split()) > 1:
        return wording
    if not rest:
        return _span_wording(letter, options) if options.named(letter) == _NONE else _phrase(letter, options, True)
    if _follows(letter + " " + rest, options.named(letter), options):
        return options.named(letter)
    if (opening or closing) and not _INITIAL.match(closing + " " + rest) and _span_wording(rest, options, strict=True):
        return _UNSURE  # the letter of one option with the wording of another
    reasoned = closing and _REASON.match(rest) and not _INITIAL.match(closing + " " + rest)
    return options.named(letter) if reasoned else None


def _read_wording(text: str, options: _Options) -> str | None:
    """The reply is or begins with an option's wording, or its last sentence ends with it or holds it."""
    sentences = [s for s in re.split(r"(?<=[.!?])\s+|\n+", text) if s.strip()]
    found = {_span_wording(phrase, options, strict=True) for phrase in (text, sentences[0])} - {None}
    said = f" {_norm(sentences[-1])} "
    held = [pair for pair in zip(options.labels, options.words, strict=True) if _concludes(said, pair[1])]
    found |= {letter for letter, words in held if not any(f" {words} " in f" {w} " for _, w in held if w != words)}
    return found.pop() if len(found) == 1 else None


def _concludes(said: str, words: str) -> bool:
    if not words or f" {words} " not in said or cues.DOUBT.search(said.replace(f" {words} ", " ")):
        return False
    verb = r" (?:is|are|was|were|be|called|named) (?:\w+ly |therefore |thus |indeed )?"
    return len(words.split()) > 2 or bool(re.search(rf"{verb}{re.escape(words)} $", said))
