"""Generation: every second turn sees turn 1 and its own reflection only; nothing is lost; the same seed, the same rows."""

import json

import pytest
from conftest import ScriptedEngine

from reflectevo_lite import prompts, store
from reflectevo_lite.generate import rollouts


def generate(engine, problems, out, **kwargs):
    return rollouts.generate_rollouts(
        engine, problems, out, **{"k": 3, "temperature": 1.0, "seed": 5, "chunk_size": 16, "progress": False} | kwargs
    )


def test_only_wrong_answers_are_reflected_on_k_times(scripted, tmp_path):
    engine, problems = scripted
    rows = generate(engine, problems, tmp_path / "r.jsonl")
    assert [r["id"] for r in rows] == [p["id"] for p in problems]
    assert any(r["turn1"]["correct"] for r in rows) and any(not r["turn1"]["correct"] for r in rows)
    for r in rows:
        assert len(r["reflections"]) == (0 if r["turn1"]["correct"] else 3)


def test_a_second_turn_sees_turn_1_and_its_own_reflection_only(scripted, tmp_path):
    engine, problems = scripted
    for row in generate(engine, problems, tmp_path / "r.jsonl"):
        for r in row["reflections"]:
            assert r["prompt"] == prompts.reflection_prompt(
                row["problem"], row["turn1"]["completion"], r["instruction"]
            )
            assert r["turn2"]["prompt"] == prompts.retry_prompt(row["problem"], row["turn1"]["completion"], r["text"])
            said = json.dumps(r["turn2"]["prompt"])
            for other in row["reflections"]:
                if other["turn2"]["completion"] != row["turn1"]["completion"]:
                    assert json.dumps(other["turn2"]["completion"])[1:-1] not in said
                if other["text"] != r["text"]:
                    assert json.dumps(other["text"])[1:-1] not in said


def test_a_killed_run_resumes_to_the_very_rows(scripted, tmp_path):
    engine, problems = scripted
    want = generate(engine, problems, tmp_path / "whole.jsonl")
    text = (tmp_path / "whole.jsonl").read_text(encoding="utf-8")
    for share in (0.1, 0.37, 0.9):
        path = tmp_path / f"{share}.jsonl"
        path.write_text(text[: int(share * len(text))], encoding="utf-8")
        assert generate(ScriptedEngine(problems), problems, path) == want
        assert path.read_text(encoding="utf-8") == text


def test_a_finished_file_asks_the_model_nothing(scripted, tmp_path):
    engine, problems = scripted
    generate(engine, problems, tmp_path / "r.jsonl")
    asked = len(engine.calls)
    generate(engine, problems, tmp_path / "r.jsonl")
    assert len(engine.calls) == asked


def test_other_seeds_give_other_reflections(scripted, tmp_path):
    engine, problems = scripted
    assert generate(engine, problems, tmp_path / "a.jsonl") != generate(engine, problems, tmp_path / "b.jsonl", seed=6)
    assert (
        rollouts.chunk_seed(0, "rollouts", 1)
        != rollouts.chunk_seed(0, "rollouts", 2)
        != rollouts.chunk_seed(1, "rollouts", 2)
    )


def test_the_embedded_model_gives_the_same_rows_for_the_same_seed(engine, tmp_path):
    from reflectevo_lite.embedded import tasks as synthetic

    problems = synthetic.problems(24, "train", seed=2)
    a = generate(engine, problems, tmp_path / "a.jsonl", max_new_tokens=96)
    b = generate(engine, problems, tmp_path / "b.jsonl", max_new_tokens=96)
    assert a == b and store.read_jsonl(tmp_path / "a.jsonl") == a
    assert any(r["reflections"] for r in a)


def test_unknown_instruction_is_refused(scripted, tmp_path):
    engine, problems = scripted
    with pytest.raises(ValueError, match="9-9-9"):
        generate(engine, problems, tmp_path / "r.jsonl", instructions=["9-9-9"])


def test_unknown_instructions_are_named_before_anything_is_made(scripted, tmp_path):
    engine, problems = scripted
    with pytest.raises(ValueError, match=r"unknown reflection instruction 3-1-1, 1-9-\*: there are 1-1-1 to 2-8-2"):
        generate(engine, problems, tmp_path / "r.jsonl", instructions=["1-1-1", "3-1-1", "1-9-*"])
    assert not engine.calls and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("chosen", "size"), [("all", 32), ("1-*-*", 16), (["2-8-2", "*-1-1"], 3), ("1-1-1", 1)])
def test_instructions_are_balanced_and_an_answer_gets_none_twice(scripted, tmp_path, chosen, size):
    engine, problems = scripted
    used = []
    for row in generate(engine, problems, tmp_path / "r.jsonl", instructions=chosen, chunk_size=60):
        names = [r["instruction"] for r in row["reflections"]]
        assert len(set(names)) == min(len(names), size)
        used += names
    counts = [used.count(name) for name in prompts.instruction_pool(chosen)]
    assert len(counts) == size and sum(counts) == len(used) and max(counts) - min(counts) <= 1


def test_a_path_a_list_and_an_iterator_give_the_same_rows(scripted, tmp_path):
    engine, problems = scripted
    store.write_jsonl(tmp_path / "problems.jsonl", problems)
    want = list(generate(engine, problems, tmp_path / "a.jsonl"))
    assert generate(engine, tmp_path / "problems.jsonl", tmp_path / "b.jsonl") == want
    assert generate(engine, iter(problems), tmp_path / "c.jsonl") == want


@pytest.mark.parametrize("change", ["seed", "chunk_size", "k", "problems", "fewer", "model"])
def test_rows_made_from_something_else_are_refused_and_kept(scripted, tmp_path, change):
    engine, problems = scripted
    out = tmp_path / "r.jsonl"
    generate(engine, problems, out)
    store.marker(out).unlink()  # as if killed before the end
    before = out.read_bytes()
    new = {"seed": 6, "chunk_size": 12, "k": 4}
    others = {"problems": [*problems[1:], problems[0]], "fewer": problems[:16]}
    other = ScriptedEngine(problems)
    other.name = "other" if change == "model" else other.name
    with pytest.raises(ValueError, match=r"r\.jsonl.*choose another run directory"):
        generate(other, others.get(change, problems), out, **{k: v for k, v in new.items() if k == change})
    assert out.read_bytes() == before and not other.calls


def test_progress_counts_found_rows_for_success_and_not_for_speed(scripted, tmp_path, capsys):
    engine, problems = scripted
    out = tmp_path / "r.jsonl"
    rows = list(generate(engine, problems, out))
    half = rollouts.tally(rows[:32])["tokens"]
    progress = rollouts.Progress(60)
    progress.add(rows[:32])  # found on disk
    progress.start()
    progress.began -= 1e6  # that many seconds ago, more or less
    progress.add(rows[32:])
    assert progress.seen == rollouts.tally(rows) and progress.bar.n == 60 and progress.bar.initial == 32
    right, made = progress.seen["right"] / 60, progress.seen["tokens"] - half
    assert f"Acc@t1 {right:.1%}, corrected " in progress.bar.postfix
    assert progress.bar.postfix.endswith(f", {made / 1e6:,.0f} tokens/s")
    progress.close()
    assert "rows/s" in capsys.readouterr().err


def test_settings_are_given_by_name_or_as_a_bundle(scripted, tmp_path):
    engine, problems = scripted
    want = list(generate(engine, problems, tmp_path / "a.jsonl"))
    params = rollouts.RolloutParams(k=3, temperature=1.0, seed=5, chunk_size=16)
    assert list(rollouts.generate_rollouts(engine, problems, tmp_path / "b.jsonl", params, progress=False)) == want
    other = rollouts.generate_rollouts(engine, problems, tmp_path / "c.jsonl", params, k=1, progress=False)
    assert {len(r["reflections"]) for r in other} == {0, 1}
    with pytest.raises((TypeError, ValueError), match="temprature"):
        generate(engine, problems, tmp_path / "d.jsonl", temprature=0.5)
