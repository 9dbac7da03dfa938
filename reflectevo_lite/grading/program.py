"""Which program does a reply hold? The block that defines what the tests ask for, with the blocks that it needs."""

import ast
import builtins
import re
import textwrap
import warnings
from collections.abc import Sequence

from .replies import EMPTY, MAX_CHARS, Reading

_PYTHON = ("python", "python3", "py", "py3", "python2", "pycon", "ipython")
_OPEN = re.compile(r"^[ \t>]*(`{3,}+|~{3,}+)[ \t]*\{?\.?([\w+#-]*)[^\n`]*\n", re.M)
_TAGGED = re.compile(r"(?is)\[(PYTHON|BEGIN|CODE)\][ \t]*\n?(.*?)(?:\[(?:/PYTHON|END|DONE|/CODE|/BEGIN)\]|\Z)")
_HTML = re.compile(r"(?is)<(?:code|python|answer)>\n?(.*?)(?:</(?:code|python|answer)>|\Z)")
_END_TOKEN = re.compile(r"</?s>|<\|\w+\|>|<｜[^｜\n]{1,40}｜>|<(?:bos|eos|pad|end_of_turn)>")
_STARTS = re.compile(r"^[ \t]*(?:>>> )?(?:def |async def |class |import |from \w+(?:\.\w+)* import |@\w)", re.M)
_PROMPT = re.compile(r"^[ \t]*(?:>>>|\.\.\.)(?: |$)", re.M)
_MOST = 40  # blocks, and cuts of one block


def read_code(text: str, tests: Sequence[str] = ()) -> Reading:
    """The program in a reply. Of the fenced Python blocks the last that defines what `tests` call, after the blocks
    whose definitions it needs; without tests the longest. Without a fence, the part of the text that is Python. Else
    the text as it is."""
    text = text[-20 * MAX_CHARS :] if isinstance(text, str) else ""
    text = re.split(r"</think>", text)[-1].replace("\r\n", "\n").replace("\0", "").replace("\ufeff", "")
    text = next((part for part in _END_TOKEN.split(text) if part.strip()), "")
    if not text.strip():
        return Reading(None, EMPTY)
    asked = _asked(tests)
    blocks = [(_source(code), language) for code, language in _blocks(text) if code.strip()][-_MOST:]
    sources = [code for code, _ in blocks]
    programs = [code for code, language in blocks if language in _PYTHON] or sources
    if program := _program(programs, asked) or _program(sources, asked):
        return Reading(program, "code block" if _tree(program) else "broken code")
    loose = _loose(text)
    if loose and (not programs or asked & _defined(loose)):
        return Reading(_with_methods(loose, asked), "bare code")
    if programs:
        return Reading(max(reversed(programs), key=len), "code block")
    return Reading(text.strip("\n"), "whole text")


# ------------------------------------------------------------------ blocks
def _blocks(text: str) -> list[tuple[str, str]]:
    """(source, language) of each block: between fences, or between the tags that prompts teach."""
    blocks, at = [], 0
    while (m := _OPEN.search(text, at)) and len(blocks) < 10 * _MOST:
        code, at = _fenced(text, m)
        blocks.append((code, m[2].lower()))
    if not blocks:
        blocks = [(m[2], "python") for m in _TAGGED.finditer(text)] or [(m[1], "") for m in _HTML.finditer(text)]
    return blocks


def _fenced(text: str, opening: re.Match) -> tuple[str, int]:
    """The block after an opening fence and where it ends: at the first fence that leaves Python, else the first of all.
    A docstring may hold fences; a last line may end with one; a block that was cut has none."""
    close = re.compile(rf"(?:^[ \t>]*|(?<=\S)[ \t]*){opening[1][0]}{{{len(opening[1])},}}[ \t]*$", re.M)
    ends = [m for m, _ in zip(close.finditer(text, opening.end()), range(_MOST), strict=False)]
    if not ends:
        return text[opening.end() :], len(text)
    inside = text[opening.end() : ends[-1].start()]
    if '"""' in inside or "'''" in inside:
        for end in ends:
            code = text[opening.end() : end.start()]
            if _tree(_source(code)):
                return code, end.end()
    return text[opening.end() : ends[0].start()], ends[0].end()


def _source(code: str) -> str:
    """A block as a program: not indented, without the prompts and outputs of a session, cut where Python ends."""
    code = textwrap.dedent(code).strip("\n")
    if re.match(r">>> ", code):
        lines = [line for line in code.split("\n") if _PROMPT.match(line)]
        code = "\n".join(_PROMPT.sub("", line, count=1) for line in lines)
    return code


def _loose(text: str) -> str:
    """The part of a text without fences that is Python: from its first definition to where Python ends."""
    text, left = text[-MAX_CHARS:], _MOST
    for m in _STARTS.finditer(text):
        lines = _source(text[m.start() :]).split("\n")
        while left := left - 1:
            tree, broken = _parsed("\n".join(lines))
            if tree:
                return "\n".join(lines).rstrip() if _names(tree) else ""
            end = min(broken, len(lines) - 1)
            while end > 0 and (not lines[end].strip() or lines[end][0] in " \t)]}"):  # to a line not indented, as prose
                end -= 1
            if end <= 0:
                break
            lines = lines[:end]
        if not left:
            break
    return ""


# ------------------------------------------------------------------ programs
def _parsed(code: str) -> tuple[ast.Module | None, int]:
    """A program's tree, or None and the line (from 0) where the parser gave up."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code), 0
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return None, (getattr(error, "lineno", None) or 1) - 1


def _tree(code: str) -> ast.Module | None:
    return _parsed(code)[0]


def _names(tree: ast.Module) -> set[str]:
    """What a program defines at its top level."""
    found = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        else:
            found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return found


def _defined(code: str) -> set[str]:
    tree = _tree(code)
    return (_names(tree) | set(_methods(tree))) if tree else set(re.findall(r"^(?:def|class)\s+(\w+)", code, re.M))


def _methods(tree: ast.Module) -> dict[str, str]:
    """Methods of classes that need no arguments to be made, by name: LeetCode's `class Solution`."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    methods = {c.name: [item.name for item in c.body if isinstance(item, ast.FunctionDef)] for c in classes}
    return {name: cls for cls, names in methods.items() if "__init__" not in names for name in names}


def _asked(tests: Sequence[str]) -> set[str]:
    """The names that tests need and Python does not have."""
    trees = [tree for test in tests if (tree := _tree(str(test).strip()))]
    names = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Name)]
    own = {n.id for n in names if isinstance(n.ctx, ast.Store)}
    return {n.id for n in names} - own - {*dir(builtins), "math", "cmath", "collections", "itertools", "re"}


def _program(blocks: list[str], asked: set[str]) -> str | None:
    """The last block that defines what is asked, or most of it, after the other blocks whose names it uses."""
    if not asked:
        return max(reversed(blocks), key=len) if blocks else None
    defines = [_defined(block) for block in blocks]
    most = max((len(names & asked) for names in defines), default=0)
    if not most:
        return None
    main = max(i for i, names in enumerate(defines) if len(names & asked) == most)
    chosen, missing = [main], _missing(blocks[main], defines[main]) | (asked - defines[main])
    for i in [*reversed(range(main)), *range(main + 1, len(blocks))]:
        if missing & defines[i] and _tree(blocks[i]):
            chosen.append(i)
            missing = (missing | _missing(blocks[i], defines[i])) - defines[i]
    return _with_methods("\n\n".join(blocks[i] for i in sorted(chosen)), asked)


def _missing(code: str, defined: set[str]) -> set[str]:
    """Names that a program reads and neither it nor Python defines."""
    if not (tree := _tree(code)):
        return set()
    names = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
    bound = {n.id for n in names if not isinstance(n.ctx, ast.Load)}
    bound |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    return {n.id for n in names} - bound - defined - set(dir(builtins))


def _with_methods(code: str, asked: set[str]) -> str:
    """A program that has the asked function as a method, with a name for it outside."""
    if not (tree := _tree(code)):
        return code
    methods, names = _methods(tree), _names(tree)
    lines = [f"{name} = {methods[name]}().{name}" for name in sorted(asked - names) if name in methods]
    return "\n".join([code, *([""] if lines else []), *lines])
