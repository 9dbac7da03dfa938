"""The loop on the embedded model, start to end: rollouts, D⁺, SFT, evaluation.   python tests/gpu/loop.py

WITHOUT_UNSLOTH=1 hides Unsloth; SMOKE=1 makes it small.
"""

import os
import sys
import tempfile
from pathlib import Path

if os.environ.get("WITHOUT_UNSLOTH"):
    sys.modules["unsloth"] = None

from reflectevo_lite import curate, embedded, evaluate, generate, train

SIZES = {"train": 48, "test": 12, "k": 2, "epochs": 1} if os.environ.get("SMOKE") else {
    "train": 300, "test": 200, "k": 4, "epochs": 5,
}  # fmt: skip


def main(out):
    trained_on = embedded.problems(SIZES["train"], "train", seed=3)
    held_out = embedded.problems(SIZES["test"], "test", seed=4)
    engine = generate.TransformersEngine(generate.load("tiny"))
    how = {"k": SIZES["k"], "temperature": 1.0, "max_new_tokens": 96, "progress": False}
    rows = list(generate.generate_rollouts(engine, trained_on, out / "train.jsonl", **how))
    plus = list(curate.d_plus(rows))
    print(f"{generate.tally(rows)}; D⁺: {len(plus)}", flush=True)
    del engine
    generate.free()
    params = train.TrainParams(learning_rate=3e-3, epochs=SIZES["epochs"], batch_size=32)
    record = train.train_sft(curate.examples("reflector", plus), out / "reflector", model="tiny", params=params)
    losses = [step["loss"] for step in record["history"]]
    print(f"{record['steps']} steps, loss {losses[0]} to {losses[-1]}", flush=True)
    generate.free()
    engine = generate.TransformersEngine(generate.load("tiny"))
    first = evaluate.first_turns(engine, held_out, out / "turn1.jsonl", max_new_tokens=96)
    asked = evaluate.Asked(held_out, first, out / "evals", max_new_tokens=96, seed=0)
    settings = (evaluate.SETTINGS["prompted"], evaluate.Setting("reflector_only", reflector=out / "reflector"))
    for setting in settings:
        found = evaluate.evaluate(engine, asked, setting)
        print(f"{setting.name}: Acc@t2 {sum(r['turn2_correct'] for r in found) / len(found):.3f}", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
