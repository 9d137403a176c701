"""The report in a browser: no errors, figures drawn, names as text, keyboard, dark mode; and half-filled folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import elsewhere as ew
from elsewhere.tables.learners import LogisticRegression
from test_security import HOSTILE, hostile_table

CARTESIAN = {
    "bar",
    "box",
    "candlestick",
    "carpet",
    "contour",
    "contourcarpet",
    "heatmap",
    "histogram",
    "histogram2d",
    "histogram2dcontour",
    "image",
    "ohlc",
    "pie",
    "scatter",
    "scattercarpet",
    "violin",
}


@pytest.fixture(scope="module")
def penguins(tmp_path_factory: pytest.TempPathFactory) -> ew.Result:
    expect = [{"metric": "accuracy", "where": {"domain": "Adelie", "learner": "logistic-regression"}, "at_least": 0.5}]
    result = ew.assay("penguins", learners=["prior", "logistic-regression"], seeds=5, out=tmp_path_factory.mktemp("penguins") / "r", expect=expect)
    result.explain("shift-decomposition")
    result.report()
    return result


@pytest.fixture
def browser(chromium: str) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,9000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver") if Path("/usr/bin/chromedriver").exists() else Service())
    yield driver
    driver.quit()


def opened(browser: Any, path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(path.resolve().as_uri())
    browser.execute_script("window.scrollTo(0, document.body.scrollHeight); window.scrollTo(0, 0); window.dispatchEvent(new Event('beforeprint'))")
    WebDriverWait(browser, 30).until(lambda b: b.execute_script("return [...document.querySelectorAll('.plot')].every(p => p.dataset.drawn)"))


def test_every_part_is_there(penguins: ew.Result) -> None:
    page = (penguins.folder / "report.html").read_text()
    for part in (
        "In words",
        "Before you read the numbers",
        "Expectations",
        "Home and elsewhere",
        "Where it holds",
        "Home against elsewhere",
        "Calibration",
        "Why: shift-decomposition",
        "To repeat it",
    ):
        assert part in page, part
    assert "11 of 344 rows have no sex and were dropped." in page
    for sentence in penguins.summary():
        assert sentence.replace("'", "&#39;") in page


def test_it_is_one_file_without_network_and_below_8_megabytes(penguins: ew.Result) -> None:
    path = penguins.folder / "report.html"
    page = path.read_text()
    assert path.stat().st_size < 8e6
    head = page[: page.index("<body>")] + page[page.index("<body>") : page.index("<script>/**")]
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", head)
    assert "default-src 'none'" in page


def test_figures_use_only_what_the_cartesian_bundle_draws(penguins: ew.Result) -> None:
    page = (penguins.folder / "report.html").read_text()
    specs = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page)
    types = {trace.get("type", "scatter") for spec in specs for trace in json.loads(spec)["data"]}
    assert len(specs) >= 5
    assert types <= CARTESIAN


def test_the_report_of_a_folder_that_is_still_being_filled(tmp_path: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ew.assay("penguins", learners=["prior", "logistic-regression"], seeds=3, out=tmp_path / "r", progress=stop)
    page = ew.Result(tmp_path / "r").report().read_text()
    assert "3 of 6 planned trials have not run yet." in page


def test_the_report_of_a_study_of_which_nothing_finished(tmp_path: Path) -> None:
    page = ew.assay("toy/quick", learners=["toy-quick:fails=true"], seeds=1, out=tmp_path / "r").report().read_text()
    assert "asked to fail" in page


@pytest.mark.browser
def test_it_opens_without_errors_and_draws_its_figures(browser: Any, penguins: ew.Result) -> None:
    opened(browser, penguins.folder / "report.html")
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    assert browser.execute_script("return document.querySelectorAll('.plot .main-svg').length") >= 10
    assert browser.execute_script("return document.querySelectorAll('.plot path.point, .plot .bars path, .plot .hm image').length") > 10


@pytest.mark.browser
def test_hostile_names_are_shown_as_text(browser: Any, tmp_path: Path) -> None:
    learners = [ew.named(name, LogisticRegression()) for name in HOSTILE[:2]]
    result = ew.assay(hostile_table(), predict="y", domain="place", group="g", source=[HOSTILE[0]], learners=learners, seeds=4, out=tmp_path / "r")
    result.explain("shift-decomposition")
    opened(browser, result.report())
    assert browser.execute_script("return window.pwned") is None
    assert HOSTILE[0] in browser.execute_script("return document.body.innerText")
    drawn = browser.execute_script("return [...document.querySelectorAll('.plot text')].map(t => t.textContent).join(' ')")
    assert "<script>window.pwned=1</script>" in drawn
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


@pytest.mark.browser
def test_tables_are_sorted_by_keyboard(browser: Any, penguins: ew.Result) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, penguins.folder / "report.html")
    button = browser.execute_script("return [...document.querySelectorAll('table')].find(t => t.caption.textContent === 'accuracy').querySelectorAll('th button')[1]")
    read = "const t = arguments[0].closest('table'); return [t.querySelectorAll('thead th')[1].ariaSort, [...t.tBodies[0].rows].map(r => Number(r.cells[1].dataset.sort))]"
    for wanted, direction in (("ascending", 1), ("descending", -1)):
        button.send_keys(Keys.ENTER)
        state, values = browser.execute_script(read, button)
        assert state == wanted
        assert values == sorted(values, reverse=direction == -1)


@pytest.mark.browser
def test_it_is_readable_in_the_dark_and_by_screen_readers(browser: Any, penguins: ew.Result) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    opened(browser, penguins.folder / "report.html")
    light = browser.execute_script(
        "const rgb = c => c.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b); const s = getComputedStyle(document.body); return [rgb(s.color), rgb(s.backgroundColor)]"
    )
    assert light[0] > 500 > 200 > light[1]
    ticks = browser.execute_script("return [...document.querySelectorAll('.plot .xtick text')].slice(0, 5).map(t => getComputedStyle(t).fill)")
    assert all(sum(map(int, re.findall(r"\d+", fill)[:3])) > 500 for fill in ticks)
    assert browser.execute_script("return [...document.querySelectorAll('table')].every(t => t.caption && [...t.querySelectorAll('thead th')].every(h => h.scope === 'col'))")
    assert browser.execute_script("return [...document.querySelectorAll('.plot')].every(p => p.getAttribute('role') === 'img' && p.getAttribute('aria-label'))")
    assert browser.execute_script("return document.documentElement.lang") == "en"
