"""The page in headless Chromium: what a person sees and does with it."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from pages import evil, write_run, write_sweep

from robustforge.reporting.html.page import TEMPLATES
from robustforge.reporting.html.write import write_report, write_run_report

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SHIFTS = "new Promise(done => new PerformanceObserver(list => done(list.getEntries().reduce((sum, one) => sum + one.value, 0)))"
SHIFTS += ".observe({type: 'layout-shift', buffered: true}) || setTimeout(() => done(0), 300))"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as started:
        path = path or started.chromium.executable_path  # what `playwright install chromium` fetched
        if not Path(path).exists():
            pytest.skip("there is no Chromium on this machine: playwright install chromium")
        made = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def visit(browser):
    """visit(file, size, scheme): the page; afterwards nothing may have failed, and nothing may have been fetched."""
    complaints, contexts = [], []

    def call(path, size=DESK, scheme="light"):
        context = browser.new_context(viewport=size, color_scheme=scheme)
        context.set_default_timeout(8000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda one: None if one.url.startswith(("file:", "data:")) else complaints.append(one.url))
        page.goto(path.as_uri())
        return page

    yield call
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_run_report(write_run(tmp_path_factory.mktemp("seen") / "run"), {"dataset": {"name": "digits"}})


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    return write_report([write_sweep(folder / "runs")], folder / "report.html")


def column(page, table, number):
    return page.eval_on_selector_all(
        f"#{table} tbody tr:not([hidden]) td:nth-child({number})", "all => all.map(one => one.textContent)"
    )


def test_tabs_by_mouse_and_keyboard(report, visit):
    page = visit(report)
    shown = "Array.from(document.querySelectorAll('.panel')).filter(one => !one.hidden).map(one => one.id)"
    assert page.evaluate(shown) == ["result"]
    page.get_by_role("tab", name="Attacks").click()
    assert page.evaluate(shown) == ["attacks"]
    page.keyboard.press("ArrowRight")
    assert page.evaluate(shown) == ["numbers"]
    page.keyboard.press("End")
    assert page.evaluate(shown) == ["setup"]
    assert page.evaluate("document.activeElement.id") == "tab-setup"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".panel:visible").count() == 7, "all of it on paper"


def test_the_table_sorts_and_filters(report, visit):
    page = visit(report)
    page.get_by_role("tab", name="All numbers").click()
    head = page.locator("#numbers th", has_text="accuracy")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    values = [float(text.split()[0]) for text in column(page, "numbers", 3)]
    assert values == sorted(values, reverse=True)
    head.get_by_role("button").click()
    assert [float(text.split()[0]) for text in column(page, "numbers", 3)] == sorted(values)
    page.get_by_role("combobox", name="Kind", exact=True).select_option("black box")
    assert {text.split()[0] for text in column(page, "numbers", 2)} == {"square"}
    assert page.locator("#numbers tbody tr:not([hidden])").count() == 2
    page.get_by_role("combobox", name="Budget", exact=True).select_option("L∞ 25/255")
    assert page.locator("form[data-filters=table-numbers] output").inner_text() == "1 of 14 rows"
    page.get_by_role("combobox", name="Kind", exact=True).select_option("")
    page.get_by_label("Search").fill("undefended worst")
    assert [text.split()[0] for text in column(page, "numbers", 1)] == ["undefended"]


def test_images_are_filtered_by_outcome(report, visit):
    page = visit(report)
    page.get_by_role("tab", name="Images").click()
    assert page.locator(".case:visible").count() == 5
    page.get_by_role("button", name="fooled").click()
    assert page.locator(".case:visible").count() == 1
    assert "attacked: 0" in page.locator(".case:visible").inner_text()
    page.get_by_role("button", name="worst", exact=True).click()
    assert page.locator(".case:visible").count() == 2
    assert page.evaluate("Array.from(document.images).every(one => one.complete && one.naturalWidth > 0)")


def test_tooltips_by_mouse_and_keyboard(report, visit):
    page = visit(report)
    page.locator(".tip").first.hover()
    assert "undefended" in page.locator("#tip").inner_text()
    figure = page.locator("svg.figure").first
    figure.focus()
    assert page.locator("#tip").is_hidden() or page.locator("#tip").inner_text()
    page.keyboard.press("ArrowRight")
    first = page.locator("#tip").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").inner_text() != first
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_sees_all_of_it_without_moving(report, sweep, visit, scheme):
    for path in (report, sweep):
        page = visit(path, PHONE, scheme)
        assert page.evaluate(SHIFTS) < 0.02
        for tab in page.get_by_role("tab").all():
            tab.click()
            for one in page.locator("details").all():
                one.evaluate("one => one.open = true")
            assert page.evaluate(WIDER) <= 0, f"{tab.inner_text()} is wider than the phone"
        small = "Array.from(document.querySelectorAll('button:not(th button), select')).filter(one => one.offsetHeight && one.offsetHeight < 40)"
        assert page.evaluate(f"{small}.length") == 0, "too small for a finger"


def test_light_and_dark(report, visit):
    ground = "getComputedStyle(document.body).backgroundColor"
    words = "getComputedStyle(document.querySelector('svg.figure text')).fill"
    light, dark = visit(report), visit(report, scheme="dark")
    assert light.evaluate(ground) != dark.evaluate(ground)
    assert light.evaluate(words) != dark.evaluate(words), "figures too"
    light.get_by_role("button", name="Light or dark").click()
    assert light.evaluate(ground) == dark.evaluate(ground)


def test_the_sweep_opens_its_runs(sweep, visit):
    page = visit(sweep)
    page.get_by_role("tab", name="Differences").click()
    page.get_by_role("combobox", name="First", exact=True).select_option("memory_size=20, seed=0")
    assert page.locator("#table-pairs tbody tr:visible").count() == 5
    page.get_by_role("tab", name="Run by run").click()
    page.locator("details.run summary").first.click()
    assert page.locator("#table-numbers1").is_visible()


def test_a_crafted_folder_runs_nothing(tmp_path, browser):
    folder = write_run(tmp_path / "run", said=evil, overrides=["<img src=x onerror='window.evil = 1'>=1"])
    np.savez(folder / "more.npz", kind="gallery", title="<script>window.evil = 1</script>", clean=np.zeros((1, 1, 4, 4)),
             attacked=np.zeros((1, 1, 4, 4)), label=[1], prediction=[1])  # fmt: skip
    page = browser.new_page()
    page.goto(write_run_report(folder).as_uri())
    for tab in page.get_by_role("tab").all():
        tab.click()
    page.mouse.move(300, 300)
    assert page.evaluate("window.evil") is None
    assert page.locator("text=window.evil").count() > 0, "it is shown as the text that it is"
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.evil = 1\">')")
    page.wait_for_timeout(100)
    assert page.evaluate("window.evil") is None, "the page's own policy refuses it too"
    page.close()


def luminance(shade):
    parts = [int(shade[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_words_and_lines_stand_out():
    """WCAG 2.1, 1.4.3: at least 4.5 for text, which every color of a figure is."""
    style = (TEMPLATES / "page.css").read_text()
    themes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r"root[^{]*\{([^}]*)\}", style)[:3]
    ]
    assert len(themes) == 3
    for theme in themes:
        for name in ("ink", "muted", "good", "bad", "bound", *(f"p{k}" for k in range(7))):
            assert contrast(theme[name], theme["card"]) >= 4.5, name
        assert contrast(theme["muted"], theme["bg"]) >= 4.5
        assert all(contrast(theme[name], theme[f"{name}-soft"]) >= 4.5 for name in ("good", "bad", "bound"))
    assert themes[1] == themes[2], "dark by the system and by the button"
