"""The words that announce an answer, weigh it, doubt it or take it back (`cues.txt`), and patterns built from them."""

import re
from pathlib import Path
from types import SimpleNamespace

_WORDS: dict[str, list[str]] = {}
for _line in Path(__file__).with_name("cues.txt").read_text(encoding="utf-8").splitlines():
    if not _line.startswith("#"):
        _name, _, _phrases = _line.partition(": ")
        _WORDS.setdefault(_name, []).extend(phrase.strip() for phrase in _phrases.split(","))
W = SimpleNamespace(**{name: f"(?:{'|'.join(phrases)})" for name, phrases in _WORDS.items()})  # as alternations

# ------------------------------------------------------------------ "the answer to the question is"
NOUN = rf"(?:answers?|ans\.?|{W.kinds} {W.nouns})"
OF = rf"(?:\s+(?:{W.about}|therefore)\b[^.:!?\n=]{{0,80}}?)?"
BRACKET = r"(?:\s*\([^()\n]{0,60}\))?"
IS = rf"\s+(?:is|are|was|{W.may} be|equals|comes out to|becomes|remains)\b[*_]*\s*[:：]?"
COLON = r"[*_\"'”\])\s]{0,4}(?:[:：]=?|=)|\s+[-–—](?=\s)"
HEADING = r"(?m:^[ \t#*_\[]*(?:the |my )?(?:final |correct )?answer[ \t*_\]]*\n)"
CHINESE = r"【?(?:正确|最终|参考|本题)?(?:答案|正确选项)】?\s*(?:应该是|应为|应是|是|为|选)?\s*[:：]?"
ANSWERS = re.compile(rf"(?i)(?<![\w-]){NOUN}{BRACKET}{OF}{BRACKET}(?:{IS}|{COLON})|{HEADING}|{CHINESE}")
LISTS = rf"(?:final|sorted|resulting|new|correct) (?:\w+ )?{W.listed}"
LISTED = rf"\b(?:{LISTS}|result|output|solution){OF}(?:\s+(?:is|are)\b\s*:?|\s*:)"
RESULTS = re.compile(f"{ANSWERS.pattern}|{LISTED}")
HINTS = ["ans", "choice", "option", "result", "value", "solution", "output", "list", "order", "string", "words"]
HINTS += ["sequence", "finish", "\\", "<", "#", "答", "$"]  # a text without these has none of the above

# ------------------------------------------------------------------ between two answers: the second replaces the first
TURN = re.compile(rf"(?i)\b{W.turn}\b")

# ------------------------------------------------------------------ letters
THINK = r"I (?:think|believe|guess|say)|I(?:'d| would) (?:say|guess)|my (?:guess|pick|choice|answer) (?:is|would be)"
HEDGE = rf"(?:{W.surely}|{THINK}|{W.likely})"
PRAISED = rf"(?:{W.praise} (?:answer|choice|option|one)|{W.praised})\b"
SEEMS = r"(?:is|must be|would be|seems|appears|looks|has to be)\s+(?:to be\s+)?(?:(?:indeed|clearly|definitely)\s+)?"
DOUBT = re.compile(rf"(?i)\b{W.doubt}\b|\bassum(?:e|ing)\b|n't\b")
REFUSAL = re.compile(rf"(?i)\b{W.refusal}\b")
