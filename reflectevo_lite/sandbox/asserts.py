"""Takes assert statements apart: what a program is asked, what must hold on its answers, and whether values equal."""

import ast
import builtins
from collections.abc import Iterator
from typing import Any, NamedTuple

from .child import decode

MODULES = ("math", "cmath", "collections", "itertools", "re")  # what asserts may use around the calls
_CONTAINERS = {"list": list, "tuple": tuple, "set": (set, frozenset), "frozenset": (set, frozenset), "dict": dict}


class Assert(NamedTuple):
    """An assert of the form `call == literal`, taken apart."""

    calls: list[str]  # sources that the program's process evaluates
    condition: str  # a lambda of their values _0, _1 …
    literal: tuple  # (value,) if the condition is `call == literal`, else ()


def read_asserts(test: str) -> Iterator[Assert]:
    """The assert statements of a source. ValueError if it holds anything else, or an assert that cannot be judged."""
    try:
        statements = ast.parse(test.strip()).body
    except SyntaxError as e:
        raise ValueError(f"cannot judge {test[:100]!r}: {e}") from None
    for statement in statements:
        if not isinstance(statement, ast.Assert):
            raise ValueError(f"cannot judge {test[:100]!r}: not an assert statement")
        split = _Split(statement.test)
        rest = ast.fix_missing_locations(split.visit(statement.test))
        if not split.calls:
            raise ValueError(f"cannot judge {test[:100]!r}: it asks nothing of the program")
        names = ", ".join(f"_{k}" for k in range(len(split.calls)))
        yield Assert(split.calls, f"lambda {names}: {ast.unparse(rest)}", _expected(rest))


def same(wire: Any, want: Any) -> bool:
    """Whether a value as it travels equals `want`, as == says. Builds no more than one number or string: a set or dict
    of hostile members (with colliding hashes) can take minutes to build."""
    try:
        tagged = wire if isinstance(wire, dict) else {"list" if isinstance(wire, list) else "": wire}
        ((kind, body),) = tagged.items()
        if kind not in _CONTAINERS:
            return bool(decode(wire) == want)
        if not isinstance(want, _CONTAINERS[kind]) or len(body) != len(want):
            return False
        if kind == "dict":
            return all(any(same(k, w) and same(v, want[w]) for k, v in body) for w in want)
        if kind in ("set", "frozenset"):  # of equal size, and no two members of `want` are equal
            return all(any(same(b, w) for b in body) for w in want)
        return all(map(same, body, want))
    except Exception:  # nothing that `encode` wrote
        return False


class _Split(ast.NodeTransformer):
    """Takes the expressions that need the program out of a condition and leaves _0, _1 … for them."""

    def __init__(self, condition):
        self.calls = []
        names = [n for n in ast.walk(condition) if isinstance(n, ast.Name)]
        self.own = {n.id for n in names if isinstance(n.ctx, ast.Store)}  # variables of loops and lambdas
        self.own |= {n.arg for n in ast.walk(condition) if isinstance(n, ast.arg)}
        self.asked = None if any(map(self._asks, names)) else _first_call(condition)

    def visit(self, node):
        whole = isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp)) and self._only_calls(node)
        if node is self.asked or whole or self._asks(_root(node)):
            if not whole and self.own & {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
                raise ValueError(f"cannot judge {ast.unparse(node)[:100]!r}, a call inside a lambda or loop")
            self.calls.append(ast.unparse(node))
            return ast.Name(f"_{len(self.calls) - 1}", ast.Load())
        return self.generic_visit(node)

    def _asks(self, node):
        """Whether this is a name that only the program can have defined."""
        known = {*dir(builtins), *MODULES, *self.own}
        return isinstance(node, ast.Name) and node.id not in known

    def _only_calls(self, loop):
        """Whether a loop asks the program and compares nothing, so that it can go there as a whole."""
        nodes = list(ast.walk(loop))
        return any(map(self._asks, nodes)) and not any(isinstance(n, ast.Compare) for n in nodes)


def _root(node):
    while isinstance(node, (ast.Call, ast.Attribute, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node


def _first_call(condition):
    """The call of the program where all names are built-in ones: MBPP has functions named sum and max."""
    calls = [n for n in ast.walk(condition) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    around = ("set", "list", "tuple", "dict", "sorted", "abs", "round", "len", "str")
    return min(calls, key=lambda n: (n.func.id in around, not all(map(_literal, n.args))), default=None)


def _literal(node):
    """(value,) of a literal, () of any other expression."""
    try:
        return (ast.literal_eval(node),)
    except (ValueError, TypeError):
        return ()


def _expected(condition):
    match condition:
        case ast.Compare(left=ast.Name(), ops=[ast.Eq()], comparators=[value]):
            return _literal(value)
        case ast.Compare(left=value, ops=[ast.Eq()], comparators=[ast.Name()]):
            return _literal(value)
    return ()
