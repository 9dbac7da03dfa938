"""Questions with answers that can be checked: published sets, your own files, the embedded tasks.

In come names of sources; out go Problem rows (`rows.Problem`), and no two splits share a question.
"""

from .check import check
from .files import SourceMissing
from .loading import EMBEDDED, check_names, describe, drop_shared, is_own, load, load_many, sources_markdown
from .own import source_name
from .shots import with_shots
from .sources import SOURCES

__all__ = ["EMBEDDED", "SOURCES", "SourceMissing", "check", "check_names", "describe", "drop_shared", "is_own", "load", "load_many",
           "source_name", "sources_markdown", "with_shots"]  # fmt: skip
