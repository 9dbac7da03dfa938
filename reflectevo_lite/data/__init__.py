"""Questions with answers that can be checked: published sets, your own files, the embedded tasks; splits that share nothing."""

from .load import EMBEDDED, SOURCES, SourceMissing, describe_sources, drop_shared, load, load_many, sources_markdown

__all__ = [
    "EMBEDDED",
    "SOURCES",
    "SourceMissing",
    "describe_sources",
    "drop_shared",
    "load",
    "load_many",
    "sources_markdown",
]
