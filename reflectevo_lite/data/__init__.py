"""Questions with answers that can be checked: published sets, your own files, the embedded tasks; splits that share nothing."""

from .files import SourceMissing
from .loading import EMBEDDED, drop_shared, load, load_many, sources_markdown
from .sources import SOURCES

__all__ = [
    "EMBEDDED",
    "SOURCES",
    "SourceMissing",
    "drop_shared",
    "load",
    "load_many",
    "sources_markdown",
]
