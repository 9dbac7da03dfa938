"""One page per set: invented rows, how a row becomes a Problem, and its `SOURCE` or `SOURCES` (docs/adding.md)."""

import pkgutil
from importlib import import_module

from ..base import Source

# The paper's sets come first in tables, in its order; other pages follow by name.
PAPER = ("logiqa", "hendrycks_math", "mbpp", "coqa", "squadshifts", "social_iqa", "strategyqa", "timedial", "vitaminc",
         "bigbench")  # fmt: skip


def collect() -> dict[str, Source]:
    """The sources of all pages in this folder, by name."""
    others = sorted({page.name for page in pkgutil.iter_modules(__path__)} - set(PAPER))
    pages = [vars(import_module(f"{__name__}.{page}")) for page in (*PAPER, *others)]
    return {source.name: source for page in pages for source in page.get("SOURCES") or [page["SOURCE"]]}


SOURCES = collect()
