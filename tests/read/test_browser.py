"""A person's way: JupyterLab in a real (headless) Chromium runs the explorer; the report opens with the network off.

Needs Chromium (Debian: `apt-get install chromium`) and the Python package playwright; skipped, and said so, without.
Screenshots are kept in $REFLECTEVO_SCREENSHOTS where that is set.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from madeup import make_run, read_lines

from reflectevo_lite import evaluate, store
from reflectevo_lite.read import Explorer, build_report, figures

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
try:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)  # a loaded machine is slow, not wrong
except ImportError:
    sync_playwright = None
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and sync_playwright), reason="no browser test: needs Chromium and the package playwright"
)
PATIENCE = 60_000  # ms


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1440, "height": 1100})
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab of its own on a free port: folder, address, token."""
    home = tmp_path_factory.mktemp("lab")
    settings = home / "config/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    where = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    (home / "work").mkdir()
    port = _free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
         "--IdentityProvider.token=test", "--allow-root", f"--ServerApp.root_dir={home / 'work'}"],
        env=os.environ | where | {"PYTHONPATH": python_path}, stdout=subprocess.DEVNULL, stderr=(home / "log").open("w"),
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    _wait(lambda: _get(f"{address}/api/status?token=test"), f"JupyterLab did not start; see {home / 'log'}")
    yield home / "work", address
    server.terminate()
    server.wait(120)


def _free_port():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return json.load(reply)
    except OSError:
        return None


def _wait(found, otherwise, seconds=120):
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, otherwise
        time.sleep(0.2)
    return value


def open_and_run(page, address, name):
    """Open a notebook in JupyterLab, wait for its kernel, run all cells."""
    page.goto(f"{address}/lab/tree/{name}?reset&token=test")
    page.get_by_role("menuitem", name="Run", exact=True).wait_for()
    sessions = f"{address}/api/sessions?token=test"
    _wait(lambda: any(s["kernel"]["execution_state"] == "idle" and s["kernel"]["connections"] for s in _get(sessions) or []), "no kernel")  # fmt: skip
    page.wait_for_timeout(1000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()


def shot(page, name, of=None):
    if folder := os.environ.get("REFLECTEVO_SCREENSHOTS"):
        (of or page).screenshot(path=str(Path(folder) / f"{name}.png"))


def explorer_notebook(folder, run_dir):
    cell = nbformat.v4.new_code_cell(f"from reflectevo_lite.read import explore\nexplorer = explore({str(run_dir)!r})")
    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=meta), folder / "look.ipynb")
    return "look.ipynb"


def test_the_explorer_filters_pages_compares_and_annotates(page, lab, tmp_path):
    run = make_run(tmp_path / "run")
    open_and_run(page, lab[1], explorer_notebook(lab[0], run.directory))
    root = page.locator(".rl-explorer")
    root.wait_for()
    count, pane = root.locator(".rl-count").first, root.locator(".rl-page")
    fields = root.locator(".rl-filter select")
    shot(page, "explorer_open")

    fields.nth(0).select_option("reflector SFT (D+) (60)")
    fields.nth(2).select_option(label="all")
    expect(count).to_contain_text("1 of 60 shown")
    fields.nth(2).select_option(index=2)  # still wrong
    expect(count).to_contain_text("1 of 11 shown")
    first = pane.locator("header b").inner_text()

    root.locator(".rl-next").click()
    expect(count).to_contain_text("2 of 11")
    expect(pane.locator("header b")).not_to_have_text(first)
    root.locator(".rl-previous").click()
    expect(pane.locator("header b")).to_have_text(first)
    pane.click()
    page.wait_for_function("document.querySelector('.rl-explorer').dataset.keys")
    page.keyboard.press("n")
    page.keyboard.press("n")
    expect(count).to_contain_text("3 of 11")
    page.keyboard.press("p")
    expect(count).to_contain_text("2 of 11")
    root.locator(".rl-list select").press("ArrowDown")
    expect(count).to_contain_text("3 of 11")

    root.locator(".rl-other select").select_option("prompted reflection")
    expect(pane.get_by_role("heading", name="prompted reflection")).to_be_visible()
    id = pane.locator("header b").inner_text()
    root.locator(".rl-label select").select_option("consistency")
    expect(root.locator(".rl-status")).to_contain_text("saved")
    root.locator(".rl-note textarea").fill("the answer is not what step 5 says")
    root.locator(".rl-note textarea").press("Tab")
    _wait(lambda: len(read_lines(run.path("annotations.jsonl"))) == 2, "the note was not saved")
    saved = read_lines(run.path("annotations.jsonl"))[-1]
    assert (saved["id"], saved["setting"], saved["class"]) == (id, "reflector_only.oracle", "consistency")
    assert saved["note"] == "the answer is not what step 5 says"
    expect(pane.get_by_text("mistake: consistency")).to_be_visible()
    shot(page, "explorer_annotated")

    root.get_by_text("Table of what is shown").click()
    expect(root.locator("table.dataTable tbody tr").first).to_be_visible()
    root.locator("table.dataTable").scroll_into_view_if_needed()
    shot(page, "explorer_table")


def test_hostile_texts_stay_texts_in_the_explorer(page, lab, tmp_path):
    run = make_run(tmp_path / "run", n=12, hostile=True)
    open_and_run(page, lab[1], explorer_notebook(lab[0], run.directory))
    root = page.locator(".rl-explorer")
    root.locator(".rl-page").wait_for()
    root.locator(".rl-filter select").nth(2).select_option(label="all")
    root.get_by_text("Table of what is shown").click()
    expect(root.locator("table.dataTable tbody tr").first).to_be_visible()
    for _ in range(3):
        root.locator(".rl-next").click()
    page.wait_for_timeout(500)
    assert page.evaluate("window.pwned") is None
    assert root.locator("img, .rl-page script, .rl-page style").count() == 0
    assert '<img src=x onerror="window.pwned=1">' in root.locator(".rl-page").inner_text()
    assert root.locator(".rl-page .rl-grid").is_visible()


def test_notebook_06_runs_in_the_browser_with_its_explorer(page, lab, tmp_path):
    run = make_run(tmp_path / "run")
    run.path("run.yaml").write_text("01_data: {seed: 0}\n02_reflection_generation: {model: tiny}\n", encoding="utf-8")
    notebook = nbformat.read(ROOT / "notebooks" / "06_analysis.ipynb", as_version=4)
    parameters = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    parameters.source += f"\nrun_dir = {str(run.directory)!r}"
    if not any("explore(" in c.source for c in notebook.cells):
        notebook.cells.append(nbformat.v4.new_code_cell("from reflectevo_lite.read import explore\nexplore(run_dir)"))
    nbformat.write(notebook, lab[0] / "06_analysis.ipynb")
    open_and_run(page, lab[1], "06_analysis.ipynb")
    _wait(run.path("report.html").exists, "notebook 06 did not reach its last cell", 120)
    explorer = page.locator(".rl-explorer")
    explorer.scroll_into_view_if_needed()
    expect(explorer.locator(".rl-page header b")).to_be_visible()
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
    shot(page, "notebook_06")


def test_the_report_shows_all_figures_with_the_network_off(browser, tmp_path):
    run = make_run(tmp_path / "run", hostile=True)
    store.write_json(run.path("metrics.json"), evaluate.metrics(run.path("evals")))
    shares = figures.taxonomy_shares(Explorer(run.directory).frame)
    for name in ("accuracy", "taxonomy", "own"):
        figures.save(figures.taxonomy(shares), run.path("figures", f"{name}.png"))
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(build_report(run.directory).as_uri())
    widths = page.eval_on_selector_all("figure img", "all => all.map(image => image.naturalWidth)")
    assert len(widths) == 3 and min(widths) > 0
    page.locator("details").nth(1).locator("summary").click()
    expect(page.locator("details").nth(1).locator(".rl-page")).to_be_visible()
    assert page.evaluate("window.pwned") is None and page.locator("img").count() == 3
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    shot(page, "report")
    context.close()
