"""One run, one directory: JSON Lines that survive interruption, the record of parameters, the environment.

    artifacts/<run>/run.yaml      every parameter as used, by notebook
                    env.json      versions, hardware, commit, fingerprints
                    data/ rollouts/ curated/ adapters/ evals/ rounds/ figures/ metrics.json
                    rows.zip      in a run that is kept: the folders of rows

Rows are appended in chunks and flushed; a truncated last chunk is dropped and made again. Everything else is written
beside its place and renamed, so a reader never sees half a file.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from io import FileIO
from pathlib import Path
from typing import IO, Any, BinaryIO

import yaml

VERSIONS = ("reflectevo_lite", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "papermill", "unsloth")


PACKED = "rows.zip"


class ChangedParameters(ValueError):
    """The run directory was made with other parameters."""


# -- JSON Lines ----------------------------------------------------------------------------------------------------------
def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """All rows of a file; a truncated last line (a killed writer's) is left out. Raises FileNotFoundError, ValueError."""
    return list(iter_jsonl(path))


def iter_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """Rows of a file one by one; see `read_jsonl`."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number}: not a JSON row ({error}); mend or delete that line"
                ) from error


class Rows(Sequence):
    """The rows of a JSON Lines file, left on disk: a read-only sequence that takes 8 bytes of memory a row.

    Iterating parses one row after the other; a slice is another view, not a copy. A truncated last line is left out.
    The file must not change meanwhile, other than by rows appended to it, which are not seen.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises FileNotFoundError."""
        self.path = Path(path)
        self._starts = array("Q", _line_starts(self.path))
        self._places = range(len(self._starts))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            view = copy.copy(self)
            view._places = self._places[i]
            return view
        place = self._places[i]
        with open(self.path, "rb") as handle:
            return self._row(handle, place)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with open(self.path, "rb") as handle:
            for place in self._places:
                yield self._row(handle, place)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def _row(self, handle: BinaryIO, place: int) -> dict[str, Any]:
        if handle.tell() != self._starts[place]:  # reading on in order keeps the handle's buffer
            handle.seek(self._starts[place])
        try:
            return json.loads(handle.readline())
        except ValueError as error:
            raise ValueError(f"{self.path}, line {place + 1}: not a JSON row ({error})") from error


def _line_starts(path: Path) -> Iterator[int]:
    at = 0
    with open(path, "rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield at
            at += len(line)


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write a whole file of rows, one after the other: beside its place, then renamed. Returns how many there were."""
    n = 0
    with writing(path) as handle:
        for n, row in enumerate(rows, 1):  # noqa: B007 - the count is what is returned
            handle.write(_line(row))
    return n


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file: beside its place, flushed to disk, then renamed."""
    with writing(path) as handle:
        handle.write(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file; see `write_text`."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[BinaryIO]:
    """A binary handle to a file beside `path`, which takes its place once the block ends well; a reader never sees half
    a file. What a killed writer left beside it is removed. Raises NoRoom on a full disk."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with _room(path):
        try:
            with open(beside, "wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
            _sweep(path)


def _sweep(path: Path) -> None:
    """Remove what dead processes left beside `path`: `.name.pid`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if (pid := left.name.rpartition(".")[2]).isdecimal() and not _alive(int(pid)):
            left.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    if os.name != "posix":  # signal 0 asks nothing there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _line(row: Any) -> bytes:
    return (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


# -- Files that grow by chunks -------------------------------------------------------------------------------------------
def append_chunks(
    path: str | Path,
    chunks: int,
    make: Callable[[int], Iterable[Any]],
    size: int,
    on_chunk: Callable[[int, list], None] | None = None,
) -> None:
    """Append chunk after chunk of rows, resuming after the last whole one.

    `make(i)` returns the rows of chunk i: `size` of them, but for the last chunk, which may hold fewer. It must depend
    on i alone, so that an interrupted and resumed file equals an undisturbed one. `on_chunk(i, rows)` hears of every
    chunk in order, those found on disk included; what it raises about these leaves the file as it is. One chunk is in
    memory at a time.

    A finished file has a marker beside it (`<name>.done`); one that does not agree with the file counts for nothing.
    Errors: InUse where another process appends to the file; NoRoom on a full disk; ValueError where the file was made
    of other chunks, or a row amid it is damaged. Whatever the error, the file is left with whole chunks.
    """
    path, hear = Path(path), on_chunk or (lambda i, rows: None)
    path.parent.mkdir(parents=True, exist_ok=True)
    if _tell_finished(path, chunks, size, hear):
        return
    with open(path, "ab", buffering=0) as handle, locked(handle, path):
        if _tell_finished(path, chunks, size, hear):  # another process was quicker
            return
        first, end = 0, 0
        for i, rows, at in _found_chunks(path, size):
            if i >= chunks:
                raise ValueError(f"{path} holds more than the {chunks} chunks of {size} rows asked for: {OTHER_FILE}")
            hear(i, rows)
            first, end = i + 1, at
        marker(path).unlink(missing_ok=True)
        handle.truncate(end)
        for i in range(first, chunks):
            rows = list(make(i))
            end = _append(handle, path, rows, end)
            hear(i, rows)
        mark_finished(path, chunks, size)


def marker(path: str | Path) -> Path:
    """The file that says that a chunked file is finished."""
    return Path(path).with_suffix(".done")


def mark_finished(path: str | Path, chunks: int, size: int) -> None:
    """Write the marker of a chunked file."""
    write_json(marker(path), {"chunks": chunks, "size": size, "bytes": Path(path).stat().st_size})


def finished(path: str | Path) -> dict[str, int] | None:
    """What the marker of a chunked file says (chunks, size, bytes); None where it is missing or disagrees with the file."""
    try:
        said, found = json.loads(marker(path).read_text()), Path(path).stat().st_size
    except (OSError, ValueError):
        return None
    fits = isinstance(said, dict) and said.keys() >= {"chunks", "size", "bytes"} and said["bytes"] == found
    return said if fits else None


def _tell_finished(path: Path, chunks: int, size: int, hear: Callable[[int, list], None]) -> bool:
    """Where the file is finished, let `hear` hear of its chunks. Raises ValueError where they are not those asked for."""
    said = finished(path)
    if said is None:
        return False
    if (said["chunks"], said["size"]) != (chunks, size):
        raise ValueError(
            f"{path} was finished as {said['chunks']} chunks of {said['size']} rows, not {chunks} of {size}: {OTHER_FILE}"
        )
    for i, rows, _ in _found_chunks(path, size, short=True):
        hear(i, rows)
    return True


def _found_chunks(path: Path, size: int, *, short: bool = False) -> Iterator[tuple[int, list, int]]:
    """(i, rows, offset of its end) of the whole chunks on disk; with `short`, of what is left after them too."""
    rows: list[Any] = []
    end = i = 0
    with open(path, "rb") as lines:
        for line in lines:
            end += len(line)
            row = _parsed(line)
            if row is None:
                _refuse_damage(path, lines, i * size + len(rows), size)
                break
            rows.append(row)
            if len(rows) == size:
                yield i, rows, end
                rows, i = [], i + 1
    if rows and short:
        yield i, rows, end


def _parsed(line: bytes) -> Any:
    """A row, or None where the line is cut off or is none."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _refuse_damage(path: Path, rest: Iterable[bytes], good: int, size: int) -> None:
    """A torn tail is made again; where more than its own chunk follows a damaged row, something else happened to the file."""
    after = sum(line.endswith(b"\n") for line in rest)
    if good % size + 1 + after > size:
        raise ValueError(
            f"{path}, line {good + 1}: not a JSON row, with {after} more after it. Put the file back as it was, or cut it "
            f"there (truncate with `head -n {good // size * size}`): the same command makes the rest again"
        )


def _append(handle: FileIO, path: Path, rows: list[Any], end: int) -> int:
    """Write a chunk at offset `end`, flushed to disk, and return its own end; on an error the file ends at `end` again."""
    data = memoryview(b"".join(map(_line, rows)))
    size = len(data)
    try:
        with _room(path):
            while data:
                data = data[handle.write(data) :]
            os.fsync(handle.fileno())
    except BaseException:
        handle.truncate(end)
        raise
    return end + size


# -- A full disk, a second process ---------------------------------------------------------------------------------------
class NoRoom(OSError):
    """The disk is full, or a quota or file-size limit is reached."""


class InUse(RuntimeError):
    """Another process is writing here."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_held: set[int] = set()  # descriptors of the locks that this process holds


@contextlib.contextmanager
def _room(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, NoRoom) or error.errno not in FULL:
            raise
        raise NoRoom(f"{path}: no room to write ({error.strerror}). {GOES_ON}") from error


OTHER_FILE = "choose another run directory (or file), or redo it with `reflectevo run … --force`"
GOES_ON = "What was finished is kept; the same command goes on from there once there is room"


@contextlib.contextmanager
def locked(handle: IO[Any], what: str | Path) -> Iterator[None]:
    """Keep other processes out of an open file. Raises InUse, naming `what` and the process that holds it.

    The lock belongs to this process alone: it ends with it however it dies, and forked children give up their share.
    Where a file system has no locks, a warning says so and the work goes on.
    """
    if not _lock(handle, what):
        raise InUse(f"{what} is in use by {_holder(handle)}: wait for it, or choose another run_dir")
    _held.add(fd := handle.fileno())
    try:
        yield
    finally:
        _held.discard(fd)
        if not handle.closed:
            _unlock(handle)


def _lock(handle: IO[Any], what: str | Path) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # some network file systems
        warnings.warn(
            f"{what}: this file system has no locks ({error.strerror}); see that one process works here", stacklevel=4
        )
    return True


def _unlock(handle: IO[Any]) -> None:
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_UN)


def _holder(handle: IO[Any]) -> str:
    """The process that holds a file's lock, from Linux's table of locks."""
    inode = str(os.fstat(handle.fileno()).st_ino)
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].split(":")[-1] == inode:
                return f"process {fields[4]}"
    return "another process"


def _give_up_locks() -> None:
    """A forked child lets go of the descriptors: a lock lasts as long as any process has one. The parent keeps its own."""
    for fd in _held:
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, fd, inheritable=False)
            os.close(null)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_up_locks)


# -- Run directory -------------------------------------------------------------------------------------------------------
class Run:
    """A run directory. `path("evals", "x.jsonl")` names a file in it.

    A run that is kept with its rows in `rows.zip` (the reference run is) is unpacked in place when it is first opened.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        if self.path(PACKED).exists() and not self.path("evals").exists():
            self._unpack()

    def _unpack(self) -> None:
        beside = self.path(f".{PACKED}.{os.getpid()}")
        try:
            with _room(self.directory), zipfile.ZipFile(self.path(PACKED)) as packed:
                packed.extractall(beside)
            for folder in sorted(beside.iterdir(), key=lambda folder: folder.name == "evals"):  # evals: it is all there
                if not self.path(folder.name).exists():
                    folder.rename(self.path(folder.name))
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def path(self, *parts: str) -> Path:
        """A path inside the run directory."""
        return self.directory.joinpath(*parts)

    def read(self, *parts: str) -> list[dict[str, Any]]:
        """The rows of one of the run's files. Raises FileNotFoundError naming the notebook that makes it."""
        return read_jsonl(self._made(*parts))

    def rows(self, *parts: str) -> Rows:
        """As `read`, with the rows left on disk: for files that may be larger than memory."""
        return Rows(self._made(*parts))

    def _made(self, *parts: str) -> Path:
        path = self.path(*parts)
        if not path.exists():
            first = f"run notebook {MADE_BY.get(parts[0], '01_data')} first"
            raise FileNotFoundError(f"{path} is missing: {first}")
        return path

    def environment(self) -> dict[str, Any]:
        """What env.json records: versions, hardware, fingerprints of data and model."""
        path = self.path("env.json")
        return json.loads(path.read_text()) if path.exists() else {}

    def params(self) -> dict[str, dict[str, Any]]:
        """Recorded parameters by notebook."""
        path = self.path("run.yaml")
        return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


STAGES = ("01_data", "02_reflection_generation", "03_sft", "04_dpo", "05_iteration", "06_analysis")


def executed_copy(run_dir: str | Path, stage: str) -> Path:
    """Where the executed copy of a stage's notebook lies."""
    return Path(run_dir) / "notebooks" / f"{stage}.ipynb"


def stage_finished(run_dir: str | Path, stage: str) -> bool:
    """Whether a stage's executed copy says that it ran to its end."""
    try:
        copy = json.loads(executed_copy(run_dir, stage).read_text(encoding="utf-8"))
        state = copy["metadata"]["papermill"]
        # papermill calls the cells after a dead kernel's last one completed, too; only those that ran have a number
        ran = all(cell["execution_count"] for cell in copy["cells"] if cell["cell_type"] == "code")
    except (OSError, ValueError, KeyError):
        return False
    return ran and bool(state.get("end_time")) and not state.get("exception")


MADE_BY = {
    "data": "01_data",
    "rollouts": "02_reflection_generation",
    "curated": "02_reflection_generation",
    "evals": "02_reflection_generation",
    "adapters": "03_sft",
    "rounds": "05_iteration",
}


def project_root() -> Path:
    """The nearest folder, from the working directory up, that holds `notebooks/` and `params/`; else the working directory."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "notebooks").is_dir() and (p / "params").is_dir()), here)


def resolve_dir(run_dir: str | Path) -> Path:
    """A run directory as an absolute path; a relative one is meant from the project's root, wherever a notebook runs."""
    return (project_root() / Path(run_dir).expanduser()).resolve()


NOT_COMPARED = frozenset({"other_seeds"})  # what is read beside: the run stays the same


def check_parameters(
    directory: Path, recorded: dict[str, dict[str, Any]], notebook: str, params: dict[str, Any]
) -> None:
    """Raise ChangedParameters where `params` differ from what the directory was made with."""
    changed = {}
    for other, values in recorded.items():
        names = set(values) | set(params) if other == notebook else set(values) & set(params)
        for name in sorted(names - NOT_COMPARED):
            if (old := values.get(name, "absent")) != (new := params.get(name, "absent")):
                changed[name] = f"{name} was {old!r}, is {new!r}"
    if changed:
        raise ChangedParameters(
            f"{directory} was made with other parameters ({'; '.join(changed.values())}). "
            "Choose another run_dir, or redo it with `reflectevo run … --force`."
        )


# -- Environment ---------------------------------------------------------------------------------------------------------
def record_environment(run: Run, found: dict[str, dict[str, str] | None]) -> None:
    """Write env.json: versions, hardware, git commit, and the fingerprints `found` of data and model."""
    known = run.environment()
    env = environment() | {"data": found["data"], "model": found["model"] or known.get("model")}
    if env != known:
        write_json(run.path("env.json"), env)


def environment() -> dict[str, Any]:
    """Versions and hardware of this process."""
    return {
        "versions": {"python": platform.python_version(), **{name: v for name in VERSIONS if (v := _version(name))}},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpu": _gpu(),
        "commit": _commit(),
    }


def fingerprints(run: Run) -> dict[str, str]:
    """sha256 (16 digits) of the run's data files."""
    files = sorted(run.path("data").glob("*.jsonl"))
    return {f.name: _sha256(f)[:16] for f in files}


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> str | None:
    if "torch" not in sys.modules:
        return None
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if re.fullmatch(r"[0-9a-f]{40}", found) else None
