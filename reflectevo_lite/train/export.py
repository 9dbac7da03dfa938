"""What a run leaves for use elsewhere: an adapter, a merged model, a GGUF file, a page on the Hub.

    reflectevo export artifacts/h100_llama3_8b --setting reflector --merged --gguf q8_0 --push me/llama3-reflector

Each goes to `<run_dir>/exports/<setting>/<form>/` with a model card of the run's own numbers. An adapter trained over
4-bit weights is merged into the stored 16-bit ones, as is usual: not bit for bit what was trained."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

from .. import generate, store

Form = Literal["adapter", "merged"]
QUANTS = ("f32", "f16", "bf16", "q8_0")  # what llama.cpp's converter writes by itself
K_QUANTS = ("q4_k_m", "q5_k_m", "q6_k")  # what its llama-quantize makes of an f16 file
LLAMA_CPP = {  # its tools, and what to do without them
    "convert_hf_to_gguf.py": "git clone https://github.com/ggml-org/llama.cpp, pip install -r "
    "llama.cpp/requirements/requirements-convert_hf_to_gguf.txt, and set LLAMA_CPP to that folder",
    "llama-quantize": f"build llama.cpp, or take {', '.join(QUANTS)}",
}
SETTINGS_OF = {"reflector": ("reflector_only", "two_stage"), "corrector": ("two_stage",)}  # where an adapter takes part


class Exported(NamedTuple):
    """What was written, by form (adapter, merged, gguf), and where it was pushed to."""

    paths: dict[str, Path]
    pushed: str | None


def export(
    run_dir: str | Path, setting: str = "reflector", *, merged: bool = False, gguf: str | None = None,
    push: str | None = None, out: str | Path | None = None,
) -> Exported:  # fmt: skip
    """Write the adapter `setting` of a run as asked for; `gguf` names a precision and implies `merged`. `push`: a Hub
    repository (owner/name) that gets the merged model, or the adapter if none was asked for. Raises ValueError if the
    run has no such adapter, a tool is missing, or the repository's name is not one."""
    run = store.Run(run_dir)
    if not run.path("adapters", setting, "training.json").exists():
        found = ", ".join(sorted(p.parent.name for p in run.path("adapters").glob("*/training.json")))
        raise ValueError(f"{run.directory} has no trained adapter {setting!r}; there are {found or 'none yet'}")
    if gguf:
        llama_cpp(gguf)  # refused before minutes of merging
    if push and push.count("/") != 1:
        raise ValueError(f"{push!r} is no repository on the Hub: write owner/name")
    folder = Path(out) if out else run.path("exports", setting)
    paths = {"adapter": _write(run, setting, "adapter", folder / "adapter")}
    if merged or gguf:
        paths["merged"] = _write(run, setting, "merged", folder / "merged")
    if gguf:
        paths["gguf"] = to_gguf(paths["merged"], folder / "gguf", gguf)
    return Exported(paths, push_to_hub(paths.get("merged", paths["adapter"]), push) if push else None)


def _write(run: store.Run, setting: str, form: Form, folder: Path) -> Path:
    """One form of an adapter with its tokenizer and card, whole or not at all."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    source, beside = run.path("adapters", setting), folder.with_name(f".{folder.name}.part")
    record = _read(source / "training.json")
    base, how = generate.resolve(record["model"]), generate.LoadParams.of(SimpleNamespace(**record["params"]))
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    if form == "merged":
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), str(source))
        model.merge_and_unload(safe_merge=True).save_pretrained(beside)
        del model
        generate.free()
    else:
        for name in ("adapter_model.safetensors", "training.json"):
            shutil.copy2(source / name, beside / name)
        config = _read(source / "adapter_config.json") | {"base_model_name_or_path": base}
        store.write_json(beside / "adapter_config.json", config)
    generate.tokenizer(base, how).save_pretrained(beside)  # with the chat template as it was trained with
    store.write_text(beside / "README.md", model_card(run, setting, form))
    shutil.rmtree(folder, ignore_errors=True)
    return beside.replace(folder)


def llama_cpp(precision: str) -> list[str]:
    """llama.cpp's tools for a precision, on the PATH, in $LLAMA_CPP or where usual. ValueError if one is missing."""
    if precision not in QUANTS + K_QUANTS:
        known = f"the converter writes {', '.join(QUANTS)}, llama-quantize {', '.join(K_QUANTS)}"
        raise ValueError(f"unknown GGUF precision {precision!r}; {known}")
    clones = [os.environ.get("LLAMA_CPP"), "llama.cpp", Path.home() / "llama.cpp", Path.home() / ".unsloth/llama.cpp"]
    found = []
    for tool, remedy in list(LLAMA_CPP.items())[: 1 if precision in QUANTS else 2]:
        places = [shutil.which(tool), *(Path(c, sub, tool) for c in clones if c for sub in ("", "build/bin"))]
        there = next((str(place) for place in places if place and Path(place).exists()), None)
        if not there:
            raise ValueError(f"{precision} needs llama.cpp's {tool}: {remedy}")
        found.append(there)
    return found


def to_gguf(model: str | Path, folder: str | Path, precision: str = "q8_0") -> Path:
    """Convert a merged model to `<folder>/model-<precision>.gguf`; ValueError if a tool is missing or refuses it."""
    converter, *quantizer = llama_cpp(precision)
    out = Path(folder) / f"model-{precision}.gguf"
    written, form = (out.with_stem("model-f16"), "f16") if quantizer else (out, precision)
    out.parent.mkdir(parents=True, exist_ok=True)
    _run_tool([sys.executable, converter, str(model), "--outfile", str(written), "--outtype", form], model, written)
    if quantizer:
        _run_tool([*quantizer, str(written), str(out), precision.upper()], model, out)
        written.unlink()
    return out


def _run_tool(command: list[str], model: str | Path, out: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not out.exists():
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise ValueError(f"llama.cpp cannot convert {model}: {last}")


def push_to_hub(folder: str | Path, repo: str) -> str:
    """Upload an export to a private Hub repository, made if it is missing; returns its address. Raises ValueError."""
    import httpx
    import huggingface_hub

    try:
        huggingface_hub.create_repo(repo, private=True, exist_ok=True)
        huggingface_hub.upload_folder(repo_id=repo, folder_path=str(folder), commit_message="reflectevo export")
    except (OSError, httpx.HTTPError) as error:
        reason = (str(error).splitlines() or ["no answer"])[0]
        raise ValueError(f"cannot push to {repo}: {reason} (log in with `hf auth login`)") from error
    return f"https://huggingface.co/{repo}"


def model_card(run: store.Run, setting: str, form: Form) -> str:
    """A model card (template: `model_card.md`) from the run's own files."""
    from huggingface_hub import ModelCard, ModelCardData

    record = _read(run.path("adapters", setting, "training.json"))
    base = {generate.TINY: None, generate.SMOLLM2: generate.SMOLLM2_HUB}.get(record["model"], record["model"])
    merged = ("transformers", "The base model with its LoRA adapter merged")
    library, what = ("peft", "A LoRA adapter") if form == "adapter" else merged
    tags = ["reflectevo", "self-reflection", record["kind"]]
    about = ModelCardData(base_model=base, pipeline_tag="text-generation", library_name=library, tags=tags)
    names = ("prompted", *SETTINGS_OF.get(setting, (setting,)))
    rows = _read(run.path("metrics.json")).get("rows", [])
    values: dict[str, Any] = {
        "setting": setting, "base": base or "the embedded model", "what": what, "record": record,
        "results": [r for r in rows if r["setting"] in names and r["task"] == "all" and r["mode"] == "oracle"],
        "losses": [h["loss"] for h in record.get("history", []) if "loss" in h],
        "env": _read(run.path("env.json")), "fingerprint": generate.fingerprint(record["model"]),
    }  # fmt: skip
    template = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")
    return f"{ModelCard.from_template(about, template_str=template, **values)}\n"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
