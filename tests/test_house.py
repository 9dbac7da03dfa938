"""The house: rooms are entered by their doors, arrows go one way, and README's drawing shows what is there."""

import ast
import re

import pytest
from conftest import ROOT

PACKAGE = ROOT / "reflectevo_lite"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}


def imported(path):
    """(level, module, names) of every import from inside the package, inside functions too; typing-only ones as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("reflectevo_lite")):
            module = (node.module or "").removeprefix("reflectevo_lite").strip(".")
            depth = len(path.relative_to(PACKAGE).parts)  # 1: a loose module; 2: in a room; 3: in a folder of a room
            outside = node.level >= depth or not node.level
            yield outside, module, [alias.name for alias in node.names]


def entered(path):
    """The rooms and loose modules that a file imports from outside its own room."""
    found = set()
    for outside, module, names in imported(path):
        if outside:
            found |= {module.split(".")[0]} if module else set(names)
    own = path.relative_to(PACKAGE).parts[0]
    return {name for name in found if name in {*ROOMS, "rows", "prompts"}} - {own}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_reaches_past_a_door(path):
    for outside, module, names in imported(path):
        if outside and module:
            assert "." not in module, f"{path.name} imports from {module}: use the door of {module.split('.')[0]}"
            assert not [name for name in names if name.startswith("_") and name != "__version__"], (path, names)


def arrows():
    found = {}
    for path in FILES:
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room in ROOMS:
            found.setdefault(room, set()).update(entered(path) & ROOMS)
    return found


def test_arrows_between_rooms_go_one_way():
    left = arrows()
    while free := [room for room, others in left.items() if not others & left.keys()]:
        for room in free:
            del left[room]
    assert not left, f"these rooms enter each other: {left}"


def test_readmes_drawing_shows_the_real_rooms_and_arrows():
    drawn = re.search(r"```text\n(rows · prompts.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[
        1
    ]
    lines = re.findall(r"^(\w+) .*?\[(.*?)\]$", drawn, re.MULTILINE)
    assert {room: {name for name in others.split() if name != "–"} for room, others in lines} == arrows()


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_door_says_what_the_room_is_for_and_its_names_are_there(room):
    import importlib

    door = importlib.import_module(f"reflectevo_lite.{room}")
    assert door.__doc__ and len(door.__doc__.splitlines()[0]) > 40
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    names = [alias.asname or alias.name for n in tree.body if isinstance(n, ast.ImportFrom) for alias in n.names]
    assert names and all(hasattr(door, name) for name in names)
