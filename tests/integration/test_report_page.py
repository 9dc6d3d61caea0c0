"""The report in a real browser: nothing fails, nothing is fetched, everybody can read it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from outputs import blocks, make_output
from playwright.sync_api import Browser, sync_playwright

from zonal.events import quiet
from zonal.findings.report.report import report
from zonal.io.table.finished import load_table

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; .ci/run installs Debian's"),
]

ALONE = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
ALONE += ["--disable-sync", "--no-first-run", "--disable-quic"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ALONE)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["whole", "bare"])
def page_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it, the post's figures too; and one with hardly anything."""
    path = tmp_path_factory.mktemp(request.param) / "out"
    if request.param == "whole":
        folder = make_output(path, blocks(features=12), components=10, state=["WA"])
    else:
        frame = blocks(3).drop(columns=["ALAND20", "POP20", "UR20"])
        folder = make_output(path, frame, steps=())
    report(folder, "report.html", table=load_table(str(path)), notify=quiet)
    return path / "report.html"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_opens_without_error_and_fits(
    browser: Browser, page_file: Path, width: int, scheme: Any
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    broken = page.evaluate("[...document.images].filter(one => !one.complete || !one.naturalWidth).length")
    assert broken == 0 and page.evaluate("document.images.length") >= 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()


def test_the_page_prints(browser: Browser, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    # What is folded stays so on paper, but for what the run was made of.
    hidden = "[...document.querySelectorAll('details')].filter(one => !one.checkVisibility()).length"
    assert page.evaluate(hidden) == page.evaluate("document.querySelectorAll('details:not(.run)').length")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
