"""The explorer's widgets: plain ipywidgets over `explorer.Explorer`, with itables for the table.

Names and texts reach the page as option labels (text, never markup) or through templates, which escape them. If a front
end does not run the script for the keys n and p, the buttons and the list's arrow keys do."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets as w
from IPython.display import HTML, display

from .. import evaluate, prompts
from ..evaluate import Evaluation
from . import mistakes
from .explorer import COLUMNS, NOTHING, Explorer, setting_name
from .transcripts import SIGNS, render

PAGE = 250  # rows in the list at a time
TABLE = 2000  # rows in the table at most
ANY = "all"


def explore(run_dir: str | Path) -> Explorer:
    """Show the explorer of a run below the cell; returns its `Explorer`, for a cell to go on from what is shown."""
    explorer = Explorer(run_dir)
    display(View(explorer).root)
    style = f"{render('transcript.css')}body:has(.rl-explorer) .rl-still {{display: none}}"
    still = f"<div class='rl-still'>{explorer.page()}</div>"  # seen where no widget is drawn
    display(HTML(f"<style>{style}</style>{still}<script>{render('keys.js')}</script>"))
    return explorer


class View:
    """Widgets bound to one explorer; `root` is what to display. Events call the explorer and then `_draw`."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self._has_library = False
        self._busy = False  # set while widgets are filled by code, so that filling them saves nothing
        style, top = w.HTML(f"<style>{render('transcript.css')}{render('explorer.css')}</style>"), self._filters()
        reader, table = self._reader(), self._table()
        self.root = w.VBox([style, *top, reader, table]).add_class("rl-explorer")
        self._start_somewhere_telling()
        self._refilter()

    def _start_somewhere_telling(self) -> None:
        """Begin with what a trained Reflector fixed, beside the prompted one, if the run has both."""
        base, best = Evaluation(evaluate.BASELINE), Evaluation("reflector_only")
        found = [Evaluation.parse(name) for name in self.explorer.options("setting") if not name.startswith("rollouts")]
        trained = [e for e in found if e.mode == "oracle" and evaluate.setting(e.setting).family != "prompted"]
        if base in found and trained:
            with self._filling():
                self.fields["setting"].value = (best if best in trained else trained[0]).stem
                self.other.value = base.stem
                if "fixed" in self.explorer.options("outcome"):
                    self.fields["outcome"].value = "fixed"

    def _filters(self) -> list[w.Widget]:
        wide, narrow = w.Layout(width="14rem"), w.Layout(width="9rem")
        self.fields, labelled = {}, []
        look_for = lambda name: name if name == "generic" else f"{name} {prompts.aspect(name)}"
        named = {"setting": setting_name, "instruction": look_for}
        for column in COLUMNS:
            found = [(name, n) for name, n in self.explorer.options(column).items() if name != NOTHING]
            choices = [(f"{named.get(column, str)(name)} ({n:,})", name) for name, n in found]
            box = w.Dropdown(options=[(ANY, ANY), *choices], layout=wide if column == "setting" else narrow)
            box.observe(self._refilter, "value")
            title = w.Label("mistake" if column == "class" else column)
            self.fields[column] = box
            labelled.append(w.VBox([title, box]).add_class("rl-filter"))
        settings = [(setting_name(name), name) for name in self.explorer.options("setting")]
        self.other = w.Dropdown(options=[("nothing", ""), *settings], layout=wide).add_class("rl-other")
        self.other.observe(self._on_other, "value")
        self.count = w.HTML()
        line = w.HBox([self.count, w.HBox([w.Label("compare with"), self.other])])
        line.layout = w.Layout(flex_flow="row wrap", justify_content="space-between", align_items="center")
        return [w.HBox(labelled, layout=w.Layout(flex_flow="row wrap")), line]

    def _reader(self) -> w.Widget:
        self.list = w.Select(rows=20, layout=w.Layout(width="auto", height="25rem")).add_class("rl-list")
        self.list.observe(self._on_select, "index")
        self.back = self._button("previous", "arrow-left", self.explorer.previous)
        self.forth = self._button("next", "arrow-right", self.explorer.next)
        move = w.HBox([self.back, self.forth, _small("&nbsp;or <kbd>n</kbd> <kbd>p</kbd>")])
        labels = [("not labelled by you", ""), *((name, name) for name in mistakes.CLASSES)]
        self.label = w.Dropdown(options=labels, layout=w.Layout(width="auto")).add_class("rl-label")
        hint = "A note; saved when you leave the field"
        note = w.Textarea(placeholder=hint, continuous_update=False, rows=3, layout=w.Layout(width="auto"))
        self.note, self.status = note.add_class("rl-note"), w.HTML()
        for box in (self.label, self.note):
            box.observe(self._on_annotate, "value")
        title = _small("Your label of the first mistake")
        annotation = w.VBox([title, self.label, self.note, self.status], layout=w.Layout(margin="8px 0 0 0"))
        self.pane = w.HTML(layout=w.Layout(width="auto"))
        left = w.VBox([self.list, move, annotation], layout=w.Layout(width="20.5rem", flex="0 0 auto"))
        right = w.VBox([self.pane], layout=w.Layout(flex="1 1 30rem", min_width="20rem"))
        layout = w.Layout(flex_flow="row wrap", align_items="flex-start")
        return w.HBox([left, right], layout=layout).add_class("rl-body")

    def _button(self, text: str, icon: str, step: Any) -> w.Button:
        button = w.Button(description=text, icon=icon, layout=w.Layout(width="6.1rem")).add_class(f"rl-{text}")
        button.on_click(lambda _: self._on_move(step))
        return button

    def _table(self) -> w.Widget:
        self.library, self.out = w.Output(), w.Output()
        inside = w.VBox([self.library, self.out])
        self.table = w.Accordion([inside], titles=("Table of what is shown",), selected_index=None)
        self.table.observe(lambda _: self._draw_table(), "selected_index")
        return self.table

    def _refilter(self, _: Any = None) -> None:
        if self._busy:
            return
        self.explorer.filter(**{c: None if box.value == ANY else box.value for c, box in self.fields.items()})
        self._draw_list()
        self._draw()
        self._draw_table()

    def _on_other(self, change: dict[str, Any]) -> None:
        self.explorer.compare(change["new"] or None)
        if not self._busy:
            self._draw()

    def _on_select(self, change: dict[str, Any]) -> None:
        if not self._busy and change["new"] is not None:
            self.explorer.select(self._start + change["new"])
            self._draw()

    def _on_move(self, step: Any) -> None:
        step()
        if not 0 <= self.explorer.position - self._start < len(self.list.options):
            self._draw_list()
        with self._filling():
            self.list.index = self.explorer.position - self._start if self.list.options else None
        self._draw()

    def _on_annotate(self, _: Any) -> None:
        if self._busy:
            return
        try:
            row = self.explorer.annotate(self.label.value or None, self.note.value)
        except (OSError, ValueError) as error:
            return self._say(f"not saved: {error}", "bad")
        self._say(f"saved {row['time'][11:19]}")
        self._draw_list()
        self.pane.value = self.explorer.page()

    @contextlib.contextmanager
    def _filling(self) -> Iterator[None]:
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    def _draw_list(self) -> None:
        """The page of the list that holds the current row."""
        place = max(self.explorer.position, 0)
        self._start = place // PAGE * PAGE
        part = self.explorer.frame.iloc[self.explorer.shown[self._start : self._start + PAGE]]
        blank = {NOTHING: "", "generic": ""}
        lines = []
        for id, *rest, outcome in part[["id", "class", "instruction", "outcome"]].itertuples(index=False):
            mistake, instruction = (blank.get(name, name) for name in rest)
            lines.append(f"{SIGNS[outcome]} {id:<20.20} {mistake:<12.12} {instruction:<6}".rstrip())
        with self._filling():
            self.list.options = [(line, i) for i, line in enumerate(lines)]
            self.list.index = place - self._start if lines else None

    def _draw(self) -> None:
        """Pane, annotation and counter of the current row; the counter last: when it has changed, all has."""
        shown, position = len(self.explorer.shown), self.explorer.position
        self.pane.value = self.explorer.page()
        with self._filling():
            found = self.explorer.annotation()
            self.label.value = found["class"] if found["class"] in mistakes.CLASSES else ""
            self.note.value = found["note"]
            self.label.disabled = self.note.disabled = position < 0
        self._say("")
        counted = f"<b>{position + 1:,}</b> of {shown:,} shown, {len(self.explorer.frame):,} in all"
        self.count.value = _small(counted).value

    def _say(self, text: str, kind: str = "") -> None:
        self.status.value = render("status.html", text=text, kind=kind)

    def _draw_table(self) -> None:
        """The rows shown as a sortable, searchable table; only while it is unfolded."""
        if self.table.selected_index is None:
            return
        import itables

        part = self.explorer.frame.iloc[self.explorer.shown[:TABLE]][["id", *COLUMNS, "tokens"]]
        if not self._has_library:  # put into the page once, when it is wanted: no CDN, nothing in a saved notebook
            with self.library:
                itables.init_notebook_mode(all_interactive=False, connected=False)
            self._has_library = True
        self.out.clear_output(wait=True)
        with self.out:
            if len(self.explorer.shown) > TABLE:
                print(f"The first {TABLE:,} of {len(self.explorer.shown):,}; filter for others.")
            itables.show(part, connected=False, allow_html=False, maxBytes=0, showIndex=False, pageLength=10)


def _small(html: str) -> w.HTML:
    return w.HTML(f'<span class="rl-count" style="white-space:nowrap">{html}</span>')
