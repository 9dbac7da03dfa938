"""The words that announce an answer, weigh it, doubt it or take it back: one table, from which patterns are built."""

from __future__ import annotations

import re


def words(*lines: str) -> str:
    """An alternation of the phrases in comma-separated lines; a phrase may hold a pattern."""
    return "(?:" + "|".join(phrase.strip() for line in lines for phrase in line.split(",")) + ")"


# ------------------------------------------------------------------ "the answer to the question is"
KINDS = words("correct, right, best, final, my, chosen, selected, most \\w+")
NOUN = rf"(?:answers?|ans\.?|{KINDS} {words('choice, option, result, value, solution, output')})"
ABOUT = words("to, of, for, in, here, that, which, given, based, according, choice, option, letter, would, then, thus")
OF = rf"(?:\s+(?:{ABOUT}|therefore)\b[^.:!?\n=]{{0,80}}?)?"
BRACKET = r"(?:\s*\([^()\n]{0,60}\))?"
MAY = words("must, would, should, will, could only, can only, has to, appears to, seems to, turns out to, comes out to")
IS = rf"\s+(?:is|are|was|{MAY} be|equals|comes out to|becomes|remains)\b[*_]*\s*[:：]?"
COLON = r"[*_\"'”\])\s]{0,4}(?:[:：]=?|=)|\s+[-–—](?=\s)"
HEADING = r"(?m:^[ \t#*_\[]*(?:the |my )?(?:final |correct )?answer[ \t*_\]]*\n)"
CHINESE = r"【?(?:正确|最终|参考|本题)?(?:答案|正确选项)】?\s*(?:应该是|应为|应是|是|为|选)?\s*[:：]?"
ANSWERS = re.compile(rf"(?i)(?<![\w-]){NOUN}{BRACKET}{OF}{BRACKET}(?:{IS}|{COLON})|{HEADING}|{CHINESE}")
LISTS = rf"(?:final|sorted|resulting|new|correct) (?:\w+ )?{words('list, order, sequence, string, words')}"
LISTED = rf"\b(?:{LISTS}|result|output|solution){OF}(?:\s+(?:is|are)\b\s*:?|\s*:)"
RESULTS = re.compile(f"{ANSWERS.pattern}|{LISTED}")
HINTS = ["ans", "choice", "option", "result", "value", "solution", "output", "list", "order", "string", "words"]
HINTS += ["sequence", "finish", "\\", "<", "#", "答", "$"]  # a text without these has none of the above

# ------------------------------------------------------------------ between two answers: the second replaces the first
TURN = re.compile(
    r"(?i)\b"
    + words(
        "wait, actually, no, not, however, but, instead, rather, sorry, oops, hmm, now, then, step, thought, try",
        r"correct\w*, re-?\w*check\w*, double-check\w*, reconsider\w*, mistake, wrong, incorrect, first, initial\w*",
        r"therefore, thus, hence, so, guess, final\w*, conclu\w*, observation, action, summary, overall",
    )
    + r"\b"
)

# ------------------------------------------------------------------ letters
REASONS = words(
    "because, since, as, which, is, due, for, not, but, based, given, it, this, that, the, they, there, i, we, so",
    "while, other, option, none, in",
)
LEAD = words(  # what stands between "the answer is" and the answer
    "the, option, choice, letter, answer, is, that, definitely, clearly, likely, probably, most, actually, simply",
    "indeed, therefore, thus, correct, right, best, one, final, option:, choice:",
)
SURELY = words("it's, it is, it must be, it should be, it has to be, it would be, it can only be, it will be, answer's")
THINK = r"I (?:think|believe|guess|say)|I(?:'d| would) (?:say|guess)|my (?:guess|pick|choice|answer) (?:is|would be)"
LIKELY = words(
    "(?:most |very )?likely, probably, definitely, certainly, surely, for sure, clearly, must be, has to be, obviously",
    "therefore, thus, hence, so, in conclusion, conclusion, (?:故|应|应该|因此|所以|本题|我)?[选選](?:择|擇|项)?",
)
HEDGE = rf"(?:{SURELY}|{THINK}|{LIKELY})"
PRAISE = words("correct, right, best, likely, appropriate, suitable, accurate")
PRAISED = (
    rf"(?:{PRAISE} (?:answer|choice|option|one)|correct|right|answer|best|accurate|appropriate|choice|fits best)\b"
)
SEEMS = r"(?:is|must be|would be|seems|appears|looks|has to be)\s+(?:to be\s+)?(?:(?:indeed|clearly|definitely)\s+)?"
PICK = words(
    r"(?:go|going|went) (?:with|for), cho(?:o|se)\w*, pick, select, opt for, settle on, vote for",
    "leav(?:es|ing)(?: us with)?",
)
BEFORE = words(  # what may precede "B is correct"; "type" may not
    "option, choice, answer, letter, statement, that, so, therefore, thus, hence, think, believe, only, then, but",
    "conclude, see, clearly, obviously, say, consequently, and",
)
DOUBT = re.compile(
    r"(?i)\b"
    + words("not, never, whether, if, neither, nor, wrong, incorrect, could, might, may, both, unless, suppose")
    + r"\b|\bassum(?:e|ing)\b|n't\b"
)
REFUSAL = re.compile(
    r"(?i)\b" + words("none of, neither, both, cannot, can't, unclear, unknown, not enough, impossible, all of") + r"\b"
)
