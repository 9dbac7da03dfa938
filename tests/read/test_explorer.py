"""The explorer's state and files; no browser (see test_browser.py) and no model."""

import json
import shutil
import time

import pytest
from madeup import HOSTILE, make_run, read_lines

from reflectevo_lite import embedded, store
from reflectevo_lite.read import Explorer, figures, mistakes, transcripts


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made") / "run").directory


@pytest.fixture
def run_dir(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def test_every_row_of_every_file_is_there_with_its_outcome(made):
    explorer = Explorer(made)
    for setting in ("prompted.oracle", "reflector_only.intrinsic"):
        rows = store.read_jsonl(made / "evals" / f"{setting}.jsonl")
        shown = explorer.filter(setting=setting)
        assert list(shown["id"]) == [r["id"] for r in rows]
        pairs = [transcripts.OUTCOMES[o] for o in shown["outcome"]]
        assert pairs == [(r["turn1_correct"], r["turn2_correct"]) for r in rows]
    rollouts = store.read_jsonl(made / "rollouts" / "train.jsonl")
    assert len(explorer.filter(setting="rollouts")) == sum(max(1, len(r["reflections"])) for r in rollouts)


def test_texts_are_those_of_the_row(made):
    explorer = Explorer(made)
    rows = {r["id"]: r for r in store.read_jsonl(made / "evals" / "reflector_only.oracle.jsonl")}
    first = dict(zip([p["id"] for p in store.read_jsonl(made / "data" / "test.jsonl")], store.read_jsonl(made / "evals" / "turn1.jsonl"), strict=True))  # fmt: skip
    explorer.filter(setting="reflector_only.oracle", outcome="fixed")
    for place in range(len(explorer.shown)):
        item = explorer.select(place)
        assert (item["turn2"], item["reflection"]) == (rows[item["id"]]["turn2"], rows[item["id"]]["reflection"])
        assert item["turn1"] == first[item["id"]]["completion"] and item["problem"]["id"] == item["id"]


def test_each_reflection_of_a_rollout_is_its_own_row(made):
    explorer = Explorer(made)
    rollouts = {r["id"]: r for r in store.read_jsonl(made / "rollouts" / "train.jsonl")}
    explorer.filter(setting="rollouts", outcome=["fixed", "still wrong"])
    for place in range(len(explorer.shown)):
        item = explorer.select(place)
        reflection = rollouts[item["id"]]["reflections"][item["part"]]
        assert (item["reflection"], item["instruction"]) == (reflection["text"], reflection["instruction"])


def test_a_file_without_first_answers_takes_them_from_turn1(run_dir):
    for path in run_dir.glob("evals/*.*.jsonl"):
        store.write_jsonl(path, [{k: v for k, v in row.items() if k != "turn1"} for row in store.read_jsonl(path)])
    explorer = Explorer(run_dir)
    explorer.filter(setting="prompted.oracle", outcome="still wrong")
    assert explorer.current()["turn1"].startswith("Step 1")


def test_it_opens_without_the_questions_and_without_rollouts(run_dir):
    shutil.rmtree(run_dir / "data")
    shutil.rmtree(run_dir / "rollouts")
    explorer = Explorer(run_dir)
    item = explorer.select(1)
    assert item["question"] and item["turn1"] and item["problem"] is None
    assert "not kept in this run" in explorer.page()


def test_nothing_to_explore_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="run notebook 02_reflection_generation first"):
        Explorer(tmp_path)


def test_filters_add_up_and_unknown_ones_are_named(made):
    explorer = Explorer(made)
    both = explorer.filter(task="lists", error=["method", "context"])
    assert len(both) and set(both["task"]) == {"lists"} and set(both["class"]) <= {"method", "context"}
    assert len(explorer.filter()) == len(explorer.frame)
    with pytest.raises(ValueError, match=r"no row has task 'poetry'; there are arithmetic"):
        explorer.filter(task="poetry")
    with pytest.raises(ValueError, match="unknown filter 'tasks'; there are setting, task"):
        explorer.filter(tasks="lists")


def test_next_and_previous_stay_inside(made):
    explorer = Explorer(made)
    explorer.filter(setting="prompted.oracle")
    assert explorer.previous()["id"] == explorer.current()["id"] and explorer.position == 0
    for _ in range(100):
        last = explorer.next()
    assert explorer.position == len(explorer.shown) - 1 and last["id"] == explorer.frame["id"].iloc[explorer.shown[-1]]
    with pytest.raises(IndexError):
        explorer.select(len(explorer.shown))


def test_a_filter_that_nothing_passes_shows_nothing_and_breaks_nothing(made):
    explorer = Explorer(made)
    assert explorer.filter(setting="prompted.oracle", outcome="broken").empty
    assert explorer.next() is None and explorer.previous() is None and "No row passes" in explorer.page()
    with pytest.raises(ValueError, match="nothing to annotate"):
        explorer.annotate("method")


def test_compare_finds_the_same_question_under_another_setting(made):
    explorer = Explorer(made)
    explorer.filter(setting="reflector_only.oracle", outcome="fixed")
    other = explorer.compare("prompted.oracle")
    assert other["id"] == explorer.current()["id"] and other["setting"] == "prompted.oracle"
    assert explorer.page().count("Second attempt") == 2
    assert explorer.compare("rollouts") is None and "not asked under" in explorer.page()
    with pytest.raises(ValueError, match="no setting 'prompted'; there are prompted"):
        explorer.compare("prompted")


# -- annotations ----------------------------------------------------------------------------------------------------------
def test_annotations_are_on_disk_at_once_and_the_last_one_wins(run_dir):
    explorer = Explorer(run_dir)
    explorer.filter(setting="prompted.oracle", outcome="still wrong")
    explorer.annotate("facts", "first thought")
    explorer.annotate("coherence", "on second thoughts: “no”\nreally")
    assert [r["class"] for r in read_lines(run_dir / "annotations.jsonl")] == ["facts", "coherence"]
    again = Explorer(run_dir)
    again.filter(setting="prompted.oracle", outcome="still wrong")
    assert again.annotation()["note"] == "on second thoughts: “no”\nreally"
    assert again.current()["class"] == "coherence" and len(again.filter(error="facts")) == 0


def test_a_label_holds_for_the_first_attempt_under_every_setting_and_can_be_taken_back(run_dir):
    explorer = Explorer(run_dir)
    explorer.filter(setting="prompted.oracle", outcome="still wrong")
    before = explorer.current()["class"]
    explorer.annotate("facts")
    id = explorer.current()["id"]
    assert set(explorer.frame.loc[explorer.frame["id"] == id, "class"]) == {"facts"}
    explorer.annotate(None)
    assert set(explorer.frame.loc[explorer.frame["id"] == id, "class"]) == {before}


def test_a_torn_line_swallows_no_later_annotation(run_dir):
    explorer = Explorer(run_dir)
    explorer.filter(setting="prompted.oracle", outcome="still wrong")
    explorer.annotate("facts", "kept")
    with open(run_dir / "annotations.jsonl", "a", encoding="utf-8") as handle:
        handle.write('{"id": "x", "cla')  # a writer was killed here
    explorer.next()
    explorer.annotate("method", "kept too")
    notes = [row["note"] for row in store.read_jsonl(run_dir / "annotations.jsonl")]
    assert notes == ["kept", "kept too"]


def test_an_unknown_class_is_refused_and_nothing_is_written(run_dir):
    explorer = Explorer(run_dir)
    with pytest.raises(ValueError, match="unknown error class 'typo'; there are calculation"):
        explorer.annotate("typo")
    assert not (run_dir / "annotations.jsonl").exists()


def test_annotations_reach_the_taxonomy(run_dir):
    explorer = Explorer(run_dir)
    explorer.filter(setting="prompted.oracle", outcome="still wrong")
    explorer.annotate("facts")
    shares = figures.taxonomy_shares(explorer.frame[explorer.frame["setting"] == "prompted.oracle"]).set_index("class")
    wrong = sum(not r["turn1_correct"] for r in store.read_jsonl(run_dir / "evals" / "prompted.oracle.jsonl"))
    assert shares.loc["facts", "n"] == 1 and shares["n"].sum() == wrong == shares["total"].iloc[0]


# -- the widgets without a front end -----------------------------------------------------------------------------------------
def view_of(run_dir):
    from reflectevo_lite.read.widgets import View

    return View(Explorer(run_dir))


def test_a_note_goes_to_the_row_it_was_written_for_and_paging_saves_nothing(run_dir):
    view = view_of(run_dir)
    id = view.explorer.current()["id"]
    view.note.value = "look again"
    view.forth.click()
    view.back.click()
    view.forth.click()
    assert view.note.value == ""
    saved = read_lines(run_dir / "annotations.jsonl")
    assert [(r["id"], r["note"]) for r in saved] == [(id, "look again")]
    view.back.click()
    assert view.note.value == "look again" and view.list.index == 0


def test_a_row_without_a_label_says_so_and_a_label_can_be_taken_back(run_dir):
    view = view_of(run_dir)
    assert view.label.label == "not labelled by you"
    view.label.value = "facts"
    view.forth.click()
    assert view.label.label == "not labelled by you"
    view.back.click()
    assert view.label.label == "facts"
    view.label.value = ""
    assert [r["class"] for r in read_lines(run_dir / "annotations.jsonl")] == ["facts", None]


def test_comparing_with_nothing_is_one_column(run_dir):
    view = view_of(run_dir)
    assert view.pane.value.count("Second attempt") == 2
    view.other.value = ""
    assert view.explorer.other is None and view.pane.value.count("Second attempt") == 1


def test_a_directory_that_cannot_be_written_is_said_so_and_loses_no_view(run_dir, monkeypatch):
    view = view_of(run_dir)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "append_line", full)
    view.label.value = "facts"
    assert "not saved" in view.status.value and "No space left" in view.status.value


def test_the_list_pages_through_more_rows_than_it_holds(run_dir, monkeypatch):
    from reflectevo_lite.read import widgets

    monkeypatch.setattr(widgets, "PAGE", 7)
    view = view_of(run_dir)
    view.fields["outcome"].value = "all"
    for _ in range(9):
        view.forth.click()
    assert view.explorer.position == 9 and view.list.index == 2 and len(view.list.options) == 7
    view.list.index = 5
    assert view.explorer.position == 12


def test_hostile_texts_are_escaped_on_the_page(tmp_path):
    explorer = Explorer(make_run(tmp_path / "run", n=12, hostile=True).directory)
    explorer.compare("prompted.oracle")
    for place in range(len(explorer.shown)):
        explorer.select(place)
        page = explorer.page()
        assert "<img" not in page and "<script" not in page and "<style" not in page
        assert page.count("<div") == page.count("</div>")


# -- differences -----------------------------------------------------------------------------------------------------------
def shown(pieces):
    """As the page shows them, marks in their tags."""
    return "".join(f"<{m}>{t}</{m}>" if m else t for m, t in pieces)


def test_differences_are_marked_and_nothing_else():
    left, right = transcripts.differences("Step 1: 2 + 2 gives 5\nAnswer: <5>", "Step 1: 2 + 2 gives 4\nAnswer: <4>")
    assert shown(left) == "Step 1: 2 + 2 gives <del>5</del>\nAnswer: <<del>5</del>>"
    assert shown(right) == "Step 1: 2 + 2 gives <ins>4</ins>\nAnswer: <<ins>4</ins>>"


def test_a_changed_step_is_compared_with_the_same_step():
    left, right = transcripts.differences(
        "Step 1: a gives b\nStep 2: c gives d\n", "Step 1: x gives b\nStep 2: c gives y\n"
    )
    assert shown(left) == "Step 1: <del>a</del> gives b\nStep 2: c gives <del>d</del>\n"
    assert shown(right) == "Step 1: <ins>x</ins> gives b\nStep 2: c gives <ins>y</ins>\n"


def test_the_page_shows_both_texts_to_the_letter_with_the_differences_in_tags(made):
    explorer = Explorer(made)
    item = explorer.current() | {
        "name": "x",
        "outcome": "fixed",
        "turn1": "  a <b>\n\n  c\n",
        "turn2": "  a <i>\n\n  c d\n",
    }
    page = transcripts.page([item])
    assert '<div class="rl-text bad">  a &lt;<del>b</del>&gt;\n\n  c\n</div>' in page
    assert '<div class="rl-text good">  a &lt;<ins>i</ins>&gt;\n\n  c<ins> d</ins>\n</div>' in page


def test_unlike_pages_are_compared_in_no_time():
    started = time.perf_counter()
    left, right = transcripts.differences("a " * 20_000, " ".join(f"w{i}" for i in range(20_000)))
    assert time.perf_counter() - started < 5 and left[0][0] == "del" and right[0][0] == "ins"


# -- classes by rule ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("2 + 3 = 6", ["2 + 3 = 6"]),
        ("so 2 + 3 * 4 = 14", []),
        ("$3 \\times 4 = 13$", ["3 × 4 = 13"]),
        ("10 / 3 = 3.33 and 10 / 3 = 3.4", ["10 / 3 = 3.4"]),
        ("1,000 + 5 = 1,005", []),
        ("x + 3 = 9", []),
        ("(2 + 3) * 4 = 20", []),
        ("7 / 0 = 1", []),
        ("50% of 8 + 2 = 6", []),
        ("5 − 7 = 2", ["5 - 7 = 2"]),
    ],
)
def test_false_equations(text, wrong):
    assert mistakes.false_equations(text) == wrong


def test_rules_know_what_they_can_know():
    problem = embedded.problems(1, "test")[0]
    task = embedded.to_task(problem)
    place_class = task.errors(task.hasty())
    assert mistakes.by_rule(problem, task.hasty().text(task)) == (place_class[0][1] if place_class else None)
    assert mistakes.by_rule(problem, "no steps at all") == "format"
    assert mistakes.by_rule(None, "It is so.", None) == "format"
    assert mistakes.by_rule(None, "It is", "it", truncated=True) == "completeness"
    assert mistakes.by_rule(None, "It is so.", "so") is None


# -- size ------------------------------------------------------------------------------------------------------------------
def test_fifty_thousand_rows_open_and_filter_quickly(made, tmp_path):
    rows = [r for r in store.read_jsonl(made / "rollouts" / "train.jsonl") if r["reflections"]]
    (tmp_path / "rollouts").mkdir()
    with open(tmp_path / "rollouts" / "train.jsonl", "w", encoding="utf-8") as out:
        for i in range(-(-25_000 // len(rows))):
            out.writelines(json.dumps(r | {"id": f"{r['id']}-{i}"}) + "\n" for r in rows)
    started = time.process_time()
    view = view_of(tmp_path)
    opened = time.process_time() - started
    started = time.process_time()
    view.fields["class"].value = "method"
    filtered = time.process_time() - started
    assert len(view.explorer.frame) >= 50_000 and opened < 3 and filtered < 0.5, (opened, filtered)
    assert HOSTILE not in view.pane.value
