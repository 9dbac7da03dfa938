"""What a run leaves for use elsewhere: an adapter, a merged model, a GGUF file, a page on the Hub.

    reflectevo export artifacts/h100_llama3_8b --setting reflector --merged --gguf q8_0 --push me/llama3-reflector

Each goes to `<run_dir>/exports/<setting>/<form>/` with a model card that holds the run's own numbers. A merged model is the base in
its stored precision plus the adapter: an adapter trained over 4-bit weights is merged into the 16-bit ones, which is the
usual way and not bit for bit what was trained.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import generate, store

CONVERTER = "convert_hf_to_gguf.py"
QUANTS = ("f32", "f16", "bf16", "q8_0")  # what llama.cpp's converter writes by itself
K_QUANTS = ("q4_k_m", "q5_k_m", "q6_k")  # what its llama-quantize makes of an f16 file
SETTINGS_OF = {  # which evaluated settings an adapter takes part in
    "reflector": ("reflector_only", "two_stage"),
    "corrector": ("two_stage",),
}


class Exported(NamedTuple):
    """What was written, by form (adapter, merged, gguf), and where it was pushed to."""

    paths: dict[str, Path]
    pushed: str | None = None


def export(
    run_dir: str | Path,
    setting: str = "reflector",
    *,
    merged: bool = False,
    gguf: str | None = None,
    push: str | None = None,
    out: str | Path | None = None,
) -> Exported:
    """Write the adapter `setting` of a run as asked for; `gguf` names a precision and implies `merged`.

    `push`: a Hub repository (owner/name) that gets the merged model, or the adapter where none was asked for. Raises
    ValueError where the run has no such adapter, a tool is missing, or the repository's name is not one.
    """
    run = store.Run(run_dir)
    source, record = _trained(run, setting)
    _check(gguf, push)
    folder = Path(out) if out else run.path("exports", setting)
    paths = {"adapter": _adapter(run, source, record, folder / "adapter")}
    if merged or gguf:
        paths["merged"] = _merged(run, source, record, folder / "merged")
    if gguf:
        paths["gguf"] = to_gguf(paths["merged"], folder / "gguf", gguf)
    pushed = push_to_hub(paths.get("merged", paths["adapter"]), push) if push else None
    return Exported(paths, pushed)


def _trained(run: store.Run, setting: str) -> tuple[Path, dict[str, Any]]:
    source = run.path("adapters", setting)
    if not (source / "training.json").exists():
        found = sorted(p.parent.name for p in run.path("adapters").glob("*/training.json"))
        raise ValueError(
            f"{run.directory} has no trained adapter {setting!r}; there are {', '.join(found) or 'none yet'}"
        )
    record = json.loads((source / "training.json").read_text())
    return source, record


def _check(gguf: str | None, push: str | None) -> None:
    """Everything that can be refused before minutes of merging."""
    if gguf:
        if gguf not in QUANTS + K_QUANTS:
            known = f"the converter writes {', '.join(QUANTS)}, llama-quantize {', '.join(K_QUANTS)}"
            raise ValueError(f"unknown GGUF precision {gguf!r}; {known}")
        converter()
        if gguf in K_QUANTS:
            quantizer(gguf)
    if push and push.count("/") != 1:
        raise ValueError(f"{push!r} is no repository on the Hub: write owner/name")


def _fresh(folder: Path) -> Path:
    """An empty folder beside `folder`, to be renamed when it is whole."""
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    return beside


def _settle(beside: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return beside.replace(folder)


def _adapter(run: store.Run, source: Path, record: dict[str, Any], folder: Path) -> Path:
    beside = _fresh(folder)
    for name in ("adapter_model.safetensors", "training.json"):
        shutil.copy2(source / name, beside / name)
    config = json.loads((source / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = generate.resolve(record["model"])
    (beside / "adapter_config.json").write_text(json.dumps(config, indent=1))
    _tokenizer(record["model"], beside)
    (beside / "README.md").write_text(model_card(run, source.name, record, "adapter"), encoding="utf-8")
    return _settle(beside, folder)


def _merged(run: store.Run, source: Path, record: dict[str, Any], folder: Path) -> Path:
    """The base model in its stored precision with the adapter added to its weights, as safetensors."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    beside = _fresh(folder)
    base = AutoModelForCausalLM.from_pretrained(generate.resolve(record["model"]), dtype="auto")
    model = PeftModel.from_pretrained(base, str(source)).merge_and_unload(safe_merge=True)
    model.save_pretrained(beside)
    del base, model
    generate.free()
    _tokenizer(record["model"], beside)
    (beside / "README.md").write_text(model_card(run, source.name, record, "merged"), encoding="utf-8")
    return _settle(beside, folder)


def _tokenizer(model: str, folder: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(generate.resolve(model)).save_pretrained(folder)


# -- GGUF -------------------------------------------------------------------------------------------------------------------
def converter() -> Path:
    """llama.cpp's own converter: $LLAMA_CPP, the PATH, or the places where it is usually cloned. Raises ValueError."""
    homes = [os.environ.get("LLAMA_CPP"), "llama.cpp", Path.home() / "llama.cpp", Path.home() / ".unsloth/llama.cpp"]
    on_path = shutil.which(CONVERTER)
    places = [Path(on_path)] if on_path else [Path(home) / CONVERTER for home in homes if home]
    for place in places:
        if place.exists():
            return place
    raise ValueError(
        f"GGUF needs llama.cpp's {CONVERTER}: git clone https://github.com/ggml-org/llama.cpp, "
        "pip install -r llama.cpp/requirements/requirements-convert_hf_to_gguf.txt, and set LLAMA_CPP to that folder"
    )


def quantizer(precision: str) -> Path:
    """llama.cpp's llama-quantize, on the PATH or built beside the converter. Raises ValueError."""
    on_path = shutil.which("llama-quantize")
    home = converter().parent
    places = [Path(on_path)] if on_path else [home / "build" / "bin" / "llama-quantize", home / "llama-quantize"]
    for place in places:
        if place.exists():
            return place
    raise ValueError(f"{precision} needs llama.cpp's llama-quantize: build llama.cpp, or take {', '.join(QUANTS)}")


def to_gguf(model: str | Path, folder: str | Path, precision: str = "q8_0") -> Path:
    """Convert a merged model's folder to `<folder>/model-<precision>.gguf` with llama.cpp's own tools.

    Raises ValueError where a tool is missing or refuses the architecture, with its last line.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"model-{precision}.gguf"
    if precision in QUANTS:
        convert = [sys.executable, str(converter()), str(model), "--outfile", str(out), "--outtype", precision]
        return _run_tool(convert, model, out)
    tool, halfway = quantizer(precision), to_gguf(model, folder, "f16")
    made = _run_tool([str(tool), str(halfway), str(out), precision.upper()], model, out)
    halfway.unlink()
    return made


def _run_tool(command: list[str], model: str | Path, out: Path) -> Path:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not out.exists():
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise ValueError(f"llama.cpp cannot convert {model}: {last}")
    return out


# -- The Hub ----------------------------------------------------------------------------------------------------------------
def push_to_hub(folder: str | Path, repo: str) -> str:
    """Upload an export to a private Hub repository, made where it is missing; returns its address. Raises ValueError."""
    import huggingface_hub

    try:
        huggingface_hub.create_repo(repo, private=True, exist_ok=True)
        huggingface_hub.upload_folder(repo_id=repo, folder_path=str(folder), commit_message="reflectevo export")
    except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
        reason = (str(error).splitlines() or ["no answer"])[0]
        raise ValueError(f"cannot push to {repo}: {reason} (log in with `hf auth login`)") from error
    return f"https://huggingface.co/{repo}"


# -- The card ---------------------------------------------------------------------------------------------------------------
def model_card(run: store.Run, setting: str, record: dict[str, Any], form: str) -> str:
    """A model card from the run's own files: figures with intervals, training data, parameters, versions, fingerprints."""
    base = record["model"]
    env = _read(run.path("env.json"))
    head = ["---", *([] if base == generate.TINY else [f"base_model: {base}"]), "pipeline_tag: text-generation"]
    head += [f"library_name: {'peft' if form == 'adapter' else 'transformers'}"]
    head += ["tags:", *(f"- {tag}" for tag in ("reflectevo", "self-reflection", record["kind"])), "---"]
    what = "A LoRA adapter" if form == "adapter" else "The base model with its LoRA adapter merged"
    body = [
        f"# {setting} on {'the embedded model' if base == generate.TINY else base}",
        f"{what}, trained to reflect on failed attempts (ReflectEvo, [arXiv 2505.16475](https://arxiv.org/abs/2505.16475)) "
        f"by reflectevo_lite, setting `{setting}`.",
        "## Results",
        _results(run, setting),
        "## Training",
        f"{record['kind'].upper()}, {record['rows']:,} rows, {record['steps']:,} steps, final loss {_last_loss(record)}.",
        _table(("parameter", "value"), sorted(record["params"].items())),
        "## Data",
        _table(("file", "sha256 (16 digits)"), sorted(env.get("data", {}).items())) or "Not recorded.",
        "## Made with",
        _table(("package", "version"), env.get("versions", {}).items()),
        f"Base model fingerprint: `{generate.fingerprint(base)}`; code: commit `{env.get('commit') or 'unknown'}`; "
        f"trained through {record.get('backend', 'unknown')}.",
        "## Licence",
        "The weights are a derivative of the base model and stay under its licence and its terms of use; the training "
        "questions stay under their data sets'. reflectevo_lite itself is Apache-2.0.",
    ]
    return "\n".join(head) + "\n\n" + "\n\n".join(body) + "\n"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _results(run: store.Run, setting: str) -> str:
    """The settings that the adapter takes part in, oracle mode, all tasks, with the prompted base beside them."""
    names = ("prompted", *SETTINGS_OF.get(setting, (setting,)))
    rows = [
        r
        for r in _read(run.path("metrics.json")).get("rows", [])
        if r["setting"] in names and r["task"] == "all" and r["mode"] == "oracle"
    ]
    if not rows:
        return "Not evaluated: notebook 06 had not run when this was exported."
    cells = [
        (
            f"{r['setting']}{' (' + r['control'] + ')' if r['control'] else ''}",
            *(f"{100 * r[name]:.1f}" for name in ("acc_t1", "acc_t2", "delta")),
            "{:.1f} to {:.1f}".format(*(100 * bound for bound in r["delta_ci"])),
            r["n"],
        )
        for r in rows
    ]
    return _table(("setting", "Acc@t1", "Acc@t2", "Δ", "95 % interval of Δ", "questions"), cells)


def _last_loss(record: dict[str, Any]) -> str:
    losses = [h["loss"] for h in record.get("history", []) if "loss" in h]
    return f"{losses[-1]:.3f}" if losses else "not recorded"


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *lines]) if lines else ""
