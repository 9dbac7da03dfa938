"""Rows on disk and the run directory: JSON Lines that survive interruption, whole files, locks, the record of versions.

Everything else reads and writes through here. Imports nothing of the package."""

from .chunks import OTHER_FILE, InUse, append_chunks, finished, locked, marker
from .directory import PACKED, ChangedParameters, Run, environment, fingerprints, record_environment, version
from .files import (
    FULL,
    GOES_ON,
    NoRoom,
    Rows,
    append_line,
    iter_jsonl,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
    write_text,
)
from .places import STAGES, BadRunDir, cache_dir, executed_copy, project_root, resolve_dir, run_dir, stage_finished
