"""The explorer's widgets: plain ipywidgets over `explorer.Explorer`, with itables for the table.

Names and texts reach the page as option labels (text, never markup) or through `transcripts`, which escapes them. The
keys n and p need a few lines of script; where a front end does not run them, the buttons and the list's arrow keys do.
"""

from __future__ import annotations

import contextlib
from typing import Any

import ipywidgets as w
from IPython.display import HTML, display

from .. import prompts
from . import errors, transcripts
from .explorer import NOTHING, Explorer, setting_name

PAGE = 250  # rows in the list at a time
TABLE = 2000  # rows in the table at most
ANY = "all"
STYLE = (
    transcripts.STYLE
    + """
.rl-explorer{padding:10px;border:1px solid #dcdad4;border-radius:10px;background:#faf9f6;color:#1c1c1a;outline-offset:2px}
.rl-explorer .widget-label,.rl-explorer .widget-inline-hbox .widget-label,.rl-explorer .jupyter-widgets{color:#1c1c1a}
.rl-explorer .rl-list select{font:11.5px/1.6 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;background:#fff;color:#1c1c1a;
 border:1px solid #dcdad4;border-radius:8px;padding:4px;height:100%}
.rl-explorer .rl-filter{margin:0 8px 2px 0}.rl-explorer .rl-filter .widget-label{font-size:11.5px;color:#6b6962;height:18px;line-height:18px;margin:0 0 0 3px}
.rl-explorer .rl-body{gap:12px}
.rl-explorer .rl-count{font-size:13px;color:#55534d}.rl-explorer .rl-status{font-size:12px;color:#02735a}
.rl-explorer .rl-status.bad{color:#a83e00}.rl-explorer kbd{border:1px solid #cfccc3;border-radius:4px;padding:0 5px;background:#fff;font-size:11px}
.rl-explorer button.jupyter-button{border-radius:6px}
"""
)
KEYS = """<script>(() => {
  const bind = () => { for (const root of document.querySelectorAll('.rl-explorer:not([data-keys])')) {
    root.dataset.keys = '1'; root.dataset.lmSuppressShortcuts = 'true'; root.tabIndex = 0;  // JupyterLab leaves its keys alone here
    root.addEventListener('keydown', event => {
      const target = event.target, list = target.closest('.rl-list');
      if (event.ctrlKey || event.metaKey || event.altKey || target.matches('input, textarea, select') && !list) return;
      const on = ['n', 'ArrowRight', ...(list ? ['ArrowDown'] : [])], back = ['p', 'ArrowLeft', ...(list ? ['ArrowUp'] : [])];
      const name = on.includes(event.key) ? '.rl-next' : back.includes(event.key) ? '.rl-previous' : null;
      if (name) { event.preventDefault(); event.stopPropagation(); root.querySelector(name)?.click(); } }); } };
  for (const ms of [0, 300, 1000, 3000, 8000]) setTimeout(bind, ms);  // the widget is drawn after this runs
})()</script>"""


def show(explorer: Explorer) -> Explorer:
    """Display an explorer below the cell and return it."""
    display(View(explorer).root)
    display(HTML(KEYS))
    return explorer


class View:
    """Widgets bound to one explorer; `root` is what to display. Events call the explorer and then `draw`."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self._has_library = False
        self._busy = False  # set while widgets are filled by code, so that filling them saves nothing
        self._make_filters()
        self._make_reader()
        self._make_annotation()
        move = w.HBox([self.back, self.forth, self.hint])
        left = w.VBox([self.list, move, self.annotation], layout=w.Layout(width="20.5rem", flex="0 0 auto"))
        right = w.VBox([self.pane], layout=w.Layout(flex="1 1 30rem", min_width="20rem"))
        body = w.HBox([left, right], layout=w.Layout(flex_flow="row wrap", align_items="flex-start"))
        body.add_class("rl-body")
        line = w.HBox([self.count, w.HBox([w.Label(self.other.rl_label), self.other])])
        line.layout = w.Layout(flex_flow="row wrap", justify_content="space-between", align_items="center")
        self.root = w.VBox([w.HTML(f"<style>{STYLE}</style>"), self.filters, line, body, self.table])
        self.root.add_class("rl-explorer")
        self._start_somewhere_telling()
        self._refilter()

    def _start_somewhere_telling(self) -> None:
        """Begin with what a trained Reflector fixed, beside the prompted one, where the run has both."""
        settings = self.explorer.options("setting")
        trained = next((s for s in settings if s.endswith(".oracle") and "prompted" not in s), None)
        with self._filling():
            if "prompted.oracle" in settings and trained:
                best = "reflector_only.oracle" if "reflector_only.oracle" in settings else trained
                self.fields["setting"].value, self.other.value = best, "prompted.oracle"
                if "fixed" in self.explorer.options("outcome"):
                    self.fields["outcome"].value = "fixed"

    # -- the parts -----------------------------------------------------------------------------------------------------
    def _make_filters(self) -> None:
        names = {
            "setting": "setting",
            "task": "task",
            "outcome": "outcome",
            "instruction": "instruction",
            "class": "mistake",
        }
        self.fields = {column: self._dropdown(label, self._choices(column)) for column, label in names.items()}
        settings = [(setting_name(name), name) for name in self.explorer.options("setting")]
        self.other = self._dropdown("compare with", [("nothing", ""), *settings])
        gains = self.explorer.frame["gain"].dropna()
        low, high = (float(gains.min()), float(gains.max())) if len(gains) else (0.0, 0.0)
        self.gain = w.FloatRangeSlider(
            value=(low, high),
            min=low,
            max=high,
            step=max((high - low) / 100, 0.01),
            readout_format=".1f",
            continuous_update=False,
        )
        self._all_gains = self.gain.value
        boxes = [*self.fields.values(), self.other]
        for box in boxes:
            box.observe(self._on_other if box is self.other else self._on_filter, "value")
        self.gain.observe(self._on_filter, "value")
        labelled = [w.VBox([w.Label(box.rl_label), box]) for box in self.fields.values()]
        labelled += [w.VBox([w.Label("gain (nats)"), self.gain])] * bool(len(gains))
        for box in labelled:
            box.add_class("rl-filter")
        self.filters = w.HBox(labelled, layout=w.Layout(flex_flow="row wrap"))
        self.other.add_class("rl-other")
        self.count = w.HTML()

    def _choices(self, column: str) -> list[tuple[str, str]]:
        named = {"setting": setting_name, "instruction": _instruction_name}.get(column, str)
        found = self.explorer.options(column).items()
        return [(ANY, ANY), *((f"{named(name)} ({n:,})", name) for name, n in found if name != NOTHING)]

    @staticmethod
    def _dropdown(label: str, options: list) -> w.Dropdown:
        wide = label in ("setting", "compare with")
        box = w.Dropdown(options=options, layout=w.Layout(width="14rem" if wide else "9rem"))
        box.rl_label = label
        return box

    def _make_reader(self) -> None:
        self.list = w.Select(options=[], rows=20, layout=w.Layout(width="auto", height="25rem"))
        self.list.add_class("rl-list")
        self.list.observe(self._on_select, "index")
        self.back = self._button("previous", "arrow-left", "rl-previous", self._on_previous)
        self.forth = self._button("next", "arrow-right", "rl-next", self._on_next)
        self.hint = w.HTML(
            '<span class="rl-count" style="white-space:nowrap">&nbsp;or <kbd>n</kbd> <kbd>p</kbd></span>'
        )
        self.pane = w.HTML(layout=w.Layout(width="auto"))
        self.library, self.out = w.Output(), w.Output()
        self.table = w.Accordion(
            [w.VBox([self.library, self.out])], titles=("Table of what is shown",), selected_index=None
        )
        self.table.observe(lambda change: self._draw_table(), "selected_index")

    @staticmethod
    def _button(text: str, icon: str, css: str, action: Any) -> w.Button:
        button = w.Button(description=text, icon=icon, layout=w.Layout(width="6.1rem"))
        button.add_class(css)
        button.on_click(lambda _: action())
        return button

    def _make_annotation(self) -> None:
        choices = [("not labelled by you", ""), *((name, name) for name in errors.CLASSES)]
        self.label = w.Dropdown(options=choices, layout=w.Layout(width="auto"))
        self.label.add_class("rl-label")
        self.note = w.Textarea(
            placeholder="A note; saved when you leave the field",
            continuous_update=False,
            rows=3,
            layout=w.Layout(width="auto"),
        )
        self.note.add_class("rl-note")
        self.status = w.HTML()
        for box in (self.label, self.note):
            box.observe(self._on_annotate, "value")
        title = w.HTML('<span class="rl-count" style="white-space:nowrap">Your label of the first mistake</span>')
        self.annotation = w.VBox([title, self.label, self.note, self.status], layout=w.Layout(margin="8px 0 0 0"))

    # -- events --------------------------------------------------------------------------------------------------------
    def _on_filter(self, _: Any) -> None:
        if not self._busy:
            self._refilter()

    def _refilter(self) -> None:
        wanted = {column: None if box.value == ANY else box.value for column, box in self.fields.items()}
        self.explorer.filter(gain=None if self.gain.value == self._all_gains else self.gain.value, **wanted)
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

    def _on_next(self) -> None:
        self.explorer.next()
        self._moved()

    def _on_previous(self) -> None:
        self.explorer.previous()
        self._moved()

    def _moved(self) -> None:
        if not 0 <= self.explorer.position - self._start < len(self.list.options):
            self._draw_list()
        with self._filling():
            if self.explorer.position >= 0:
                self.list.index = self.explorer.position - self._start
        self._draw()

    def _on_annotate(self, _: Any) -> None:
        if self._busy:
            return
        try:
            row = self.explorer.annotate(self.label.value or None, self.note.value)
        except (OSError, ValueError) as error:
            return self._say(f"not saved: {error}", "bad")
        self._say(f"saved {row['time'][11:19]}")
        with self._filling():
            place = self.list.index
            self._draw_list()
            self.list.index = place
        self.pane.value = self.explorer.page()

    # -- drawing -------------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _filling(self) -> Any:
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
        lines = [
            f"{transcripts.SIGNS[o]} {id:<20.20} {c if c != NOTHING else '':<12.12} {n if n not in (NOTHING, 'generic') else '':<6}".rstrip()
            for o, id, c, n in zip(part["outcome"], part["id"], part["class"], part["instruction"], strict=True)
        ]
        with self._filling():
            self.list.options = [(line, i) for i, line in enumerate(lines)]
            self.list.index = place - self._start if lines else None

    def _draw(self) -> None:
        """Pane, annotation and counter of the current row; the counter last: when it has changed, all has."""
        shown, position = len(self.explorer.shown), self.explorer.position
        self.pane.value = self.explorer.page()
        with self._filling():
            found = self.explorer.annotation()
            self.label.value = found["class"] if found["class"] in errors.CLASSES else ""
            self.note.value = found["note"]
            self.label.disabled = self.note.disabled = position < 0
        self._say("")
        self.count.value = f'<span class="rl-count"><b>{position + 1:,}</b> of {shown:,} shown, {len(self.explorer.frame):,} in all</span>'

    def _say(self, text: str, kind: str = "") -> None:
        self.status.value = f'<span class="rl-status {kind}">{transcripts.escape(text)}</span>'

    def _draw_table(self) -> None:
        """The rows shown as a sortable, searchable table; only while it is unfolded."""
        if self.table.selected_index is None:
            return
        import itables

        columns = ["id", "task", "setting", "outcome", "instruction", "class", "gain", "tokens"]
        part = self.explorer.frame.iloc[self.explorer.shown[:TABLE]][columns]
        if part["gain"].isna().all():
            part = part.drop(columns="gain")
        if not self._has_library:  # put into the page once, when it is wanted: no CDN, nothing in a saved notebook
            with self.library:
                itables.init_notebook_mode(all_interactive=False, connected=False)
            self._has_library = True
        self.out.clear_output(wait=True)
        with self.out:
            if len(self.explorer.shown) > TABLE:
                print(f"The first {TABLE:,} of {len(self.explorer.shown):,}; filter for others.")
            itables.show(part.round(2), connected=False, allow_html=False, maxBytes=0, showIndex=False, pageLength=10)


def _instruction_name(name: str) -> str:
    return name if name == "generic" else f"{name} {prompts.aspect(name)}"
