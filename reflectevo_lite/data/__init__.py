"""Questions with answers that can be checked: published sets, your own files, the embedded tasks.

In come names of sources; out go Problem rows (`rows.Problem`), and no two splits share a question.
"""

from .files import SourceMissing
from .loading import EMBEDDED, describe, drop_shared, load, load_many, sources_markdown
from .sources import SOURCES

__all__ = ["EMBEDDED", "SOURCES", "SourceMissing", "describe", "drop_shared", "load", "load_many", "sources_markdown"]
