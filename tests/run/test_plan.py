"""`reflectevo plan`: sizes, memory and work against known values; what does not fit is said with what would help."""

import json

import pytest
import yaml
from conftest import ROOT

from reflectevo_lite.generate import GIB, KNOWN, Shape, shape_of
from reflectevo_lite.generate.sizes import shape_from_config
from reflectevo_lite.run import cli, memory, params, pipeline, plan, products
from reflectevo_lite.run.memory import Setup
from reflectevo_lite.train.backend import linear_layers

PARAMS = sorted((ROOT / "params").glob("*.yaml"))
CARD_OF = {"colab": "T4", "kaggle": "T4", "l4": "L4", "a100": "A100 40GB", "h100": "H100"}
PUBLISHED = {  # numbers of weights as the models' pages give them
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "google/gemma-2-9b-it": 9_241_705_984,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_models_have_their_published_size(name):
    assert shape_of(name).parameters == PUBLISHED[name]


def test_the_embedded_model_has_its_files_size():
    shape, file = shape_of("tiny"), ROOT / "reflectevo_lite/embedded/model/model.safetensors"
    header = int.from_bytes(file.read_bytes()[:8], "little") + 8
    assert memory.weights(Setup(shape, bytes_per_weight=4)) == file.stat().st_size - header


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma2"])
def test_counts_agree_with_transformers_and_peft(kind):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    small |= {"head_dim": 24, "intermediate_size": 96, "vocab_size": 100, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, **small, tie_word_embeddings=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = shape_from_config(json.loads(config.to_json_string(use_diff=False)))
    assert shape.parameters == model.num_parameters()
    lora = get_peft_model(model, LoraConfig(r=4, target_modules=linear_layers(model)))
    assert shape.lora(4) == sum(p.numel() for p in lora.parameters() if p.requires_grad)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_agree_with_what_autograd_saves(checkpointing):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    def saved(layers):
        config = LlamaConfig(hidden_size=192, num_attention_heads=6, num_key_value_heads=2, head_dim=32, vocab_size=64,
                             intermediate_size=640, num_hidden_layers=layers)  # fmt: skip
        model = LlamaForCausalLM(config).to(torch.bfloat16)
        model = get_peft_model(model, LoraConfig(r=4, target_modules=linear_layers(model))).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            model.model.model(input_ids=torch.zeros(2, 48, dtype=torch.long))
        return sum(size for size, _ in kept.values())

    def planned(layers):
        shape = Shape(192, layers, 6, 2, 32, 640, 64, False)
        return memory.activations(Setup(shape, lora_r=4, gradient_checkpointing=checkpointing), 96)

    assert planned(5) - planned(2) == pytest.approx(saved(5) - saved(2), rel=0.02)


def test_four_bits_hold_llama_3_in_under_six_gib():
    setup = Setup(KNOWN["meta-llama/Meta-Llama-3-8B-Instruct"], load_in_4bit=True)
    assert 5.2 * GIB < memory.weights(setup) < 5.8 * GIB  # 5.3–5.7 GB checkpoints of bnb-4bit uploads, head in 16 bits
    assert memory.weights(setup._replace(load_in_4bit=False)) == 2 * 8_030_261_248


def test_every_remedy_lowers_the_peak():
    setup = Setup(KNOWN["Qwen/Qwen3-8B"])
    peak = memory.train_memory(setup, "dpo", 4)
    assert memory.train_memory(setup, "dpo", 2) < peak and memory.train_memory(setup, "sft", 4) < peak
    for change in ({"gradient_checkpointing": True}, {"load_in_4bit": True}, {"max_length": 512}, {"lora_r": 8}):
        assert memory.train_memory(setup._replace(**change), "dpo", 4) < peak
    assert memory.train_memory(setup._replace(full_finetuning=True), "sft", 4) > 130 * GIB


def planned_run(tmp_path, capsys, text, *args):
    (tmp_path / "p.yaml").write_text(f"run_dir: {tmp_path / 'run'}\n{text}")
    status = cli.main(["plan", str(tmp_path / "p.yaml"), *args, "--notebooks", str(ROOT / "notebooks")])
    out, err = capsys.readouterr()
    return status, out, err


def test_what_does_not_fit_is_said_with_a_remedy_that_works(tmp_path, capsys):
    text = "model: Qwen/Qwen2.5-1.5B-Instruct\nmax_length: 2048\nsft_batch_size: 8\ndpo_batch_size: 8\n"
    status, out, _ = planned_run(tmp_path, capsys, text, "--gpu-memory", "16")
    assert status == 2 and "does not fit" in out and not (tmp_path / "run").exists()
    remedies = out.split("; set ")[1].strip().split(", ")
    mended = "\n".join(r.split(" and grad_accum")[0] for r in remedies)
    names = set(yaml.safe_load(mended))
    kept = "".join(line + "\n" for line in text.splitlines() if line.split(":")[0] not in names)
    status, out, _ = planned_run(tmp_path, capsys, kept + mended, "--gpu-memory", "16")
    assert status == 0 and "fits: at most" in out


def test_an_8b_model_in_16_bits_on_a_small_card_needs_another_one(tmp_path, capsys):
    asked = "model: meta-llama/Meta-Llama-3-8B-Instruct\n"
    status, out, _ = planned_run(tmp_path, capsys, asked, "--gpu-memory", "6")
    assert status == 2 and "load_in_4bit: true" in out and "that is not enough" in out


def test_measured_memory_lies_within_half_of_the_plan():
    """SmolLM2-135M's shape on a CPU in fp32 (2.9 and 7.7 GiB at 1 and 4 rows of up to 684 tokens, the whole process); and
    Qwen3-1.7B's in 16 bits on an H200, 8 rows of up to 1,050 tokens (artifacts/reference/gpu)."""
    sizes = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
    sizes |= {"intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True}
    small = Setup(shape_from_config({"model_type": "llama"} | sizes), bytes_per_weight=4, max_length=684)
    large = Setup(KNOWN["Qwen/Qwen3-1.7B"], gradient_checkpointing=True, max_length=1050)
    for setup, kind, rows, measured in (
        (small, "sft", 1, 2.9),
        (small, "sft", 4, 7.7),
        (large, "sft", 8, 5.7),
        (large, "dpo", 8, 28.3),
    ):
        assert 1 / 1.5 < memory.train_memory(setup, kind, rows) / GIB / measured < 1.5, (kind, rows)


def test_without_a_card_the_need_is_said(tmp_path, capsys):
    status, out, _ = planned_run(tmp_path, capsys, "model: tiny\n")
    assert status == 0 and "no GPU here: name one with --gpu T4" in out and "906,752 parameters" in out


def test_a_run_is_warned_before_it_starts(monkeypatch):
    monkeypatch.setattr(cli, "_card_here", lambda: memory.CARDS["T4"])
    told = {name: cli._too_big(params.defaults() | {"model": name}) for name in (*PUBLISHED, "tiny", "nobody/nothing")}
    assert told["meta-llama/Meta-Llama-3-8B-Instruct"].startswith("does not fit: up to ")
    assert told["tiny"] is None and told["nobody/nothing"] is None


@pytest.mark.parametrize(
    ("text", "args", "said"),
    [("model: nobody/nothing\n", [], "is not known"), ("model: tiny\n", ["--gpu", "Voodoo"], "unknown card 'Voodoo'")],
)
def test_what_cannot_be_planned_is_one_line(tmp_path, capsys, text, args, said):
    status, _, err = planned_run(tmp_path, capsys, text, *args)
    assert status == 2 and said in err and err.count("\n") == 1


def test_an_unknown_architecture_is_refused_rather_than_guessed():
    with pytest.raises(ValueError, match="mamba"):
        shape_from_config({"model_type": "mamba"})


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("l4", "L4"),
    ],
)
def test_cards_are_known_by_the_names_drivers_give(name, known):
    assert memory.card(name) == memory.CARDS[known]


def test_prompts_rows_and_steps_follow_from_the_parameters():
    values = params.defaults() | {"n_train": 2000, "n_test": 100, "sources": ["a", "b"], "k": 2, "turns": 2}
    values |= {"max_new_tokens": 64, "sft_batch_size": 10, "sft_epochs": 2, "grad_accum": 2}
    found = {
        (w.stage[:2], w.what): w for w in plan.count(values, products.ORDER, plan.Assumed(wrong=0.4, corrected=0.25))
    }
    assert found["02", "rollouts"].prompts == 1000 + 2 * 400 * 2
    assert found["02", "first answers"].prompts == 200  # of each source
    assert found["02", "prompted, one completion"].prompts == 80
    assert found["02", "prompted reflection"].prompts == 2 * 80 + 80 + 2 * 80 + 2 * 200 + 200
    sft = found["03", "SFT: reflector (D+)"]
    assert sft.rows == 400 * 2 * 0.25 and sft.steps == 2 * 10  # 20 rows a step, 2 epochs
    assert found["04", "DPO: DPO (D±)"].rows == 400 * 0.375  # two reflections make one pair at most: 2 × 0.25 × 0.75
    assert found["gr", "GRPO: GRPO"].steps == 25 and ("03", "SFT: answers only") in found


@pytest.mark.parametrize("path", PARAMS, ids=lambda p: p.stem)
def test_params_files_are_right_and_fit_their_card(path):
    asked = pipeline.make_plan(pipeline.load_params(path), ROOT / "notebooks")
    card = CARD_OF.get(path.stem.split("_")[0])
    assert card is None or plan.estimate(asked.values, device=memory.CARDS[card]).fits
    head = path.read_text().split("run_dir:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert card is None or ("not measured" in head and f"--gpu {card.split()[0]}" in head.replace('"', ""))
    assert asked.run_dir == ROOT / "artifacts" / path.stem
