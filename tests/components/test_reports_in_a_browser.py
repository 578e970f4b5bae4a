"""Every report in Chromium: nothing reaches beyond the frame, its type can be read, the contents work, nothing runs."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import report_pages
from tools import browser

pytestmark = pytest.mark.skipif(not browser.found(), reason="no Chromium here: apt-get install chromium")
FRAME = 427
SCROLL_BAR = 15
STEPS = ("evaluation", "encoder", "ingest", "tuning", "recommend")
BEYOND = """[...page.querySelectorAll('body *')].filter(one => {
    let at = one.getBoundingClientRect();
    return at.width && at.right > page.documentElement.clientWidth + 0.5 && !one.closest('.scroll') && !one.closest('svg')
}).slice(0, 5).map(one => one.outerHTML.slice(0, 200))"""
TYPE = """[...page.querySelectorAll('svg')].map(svg => {
    let scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    let sizes = [...svg.querySelectorAll('text')].map(text => parseFloat(view.getComputedStyle(text).fontSize));
    return scale * Math.min(15, ...sizes)
})"""
"""Pixels of the smallest type of each drawing; 0 where it is folded away."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Step -> its report."""
    return report_pages.every(tmp_path_factory.mktemp("reports"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[browser.Browser]:
    """One browser for all."""
    with browser.Browser() as one:
        yield one


@pytest.mark.parametrize("step", STEPS)
def test_nothing_reaches_beyond_and_plots_can_be_read(pages: dict[str, str], chromium: browser.Browser, step: str) -> None:
    html = pages[step]
    assert len(html) < 2_000_000
    folded = html.count("<details>")
    assert folded or step == "recommend"
    for opened in (html, html.replace("<details>", "<details open>")):
        for width in (FRAME - SCROLL_BAR, FRAME, 1080, 1400):
            chromium.show(opened, width=width)
            seen = chromium.ask("[page.documentElement.scrollWidth, page.documentElement.clientWidth, page.scripts.length]")
            assert seen[0] <= seen[1] == width and seen[2] == 0, chromium.ask(BEYOND)
            assert chromium.ask(BEYOND) == []
            sizes = [size for size in chromium.ask(TYPE) if size > 0]
            assert all(size >= 14 for size in sizes), (width, sizes)
    assert len(sizes) == html.count("<svg")  # all were seen, opened


@pytest.mark.parametrize("step", STEPS)
def test_contents_work_within_the_frame_of_kubeflow_s_pages(
    pages: dict[str, str], chromium: browser.Browser, step: str
) -> None:
    """A frame made of `srcdoc`, where a link to `#part` would leave the report."""
    if "<nav>" not in pages[step]:
        pytest.skip("one section: nothing to go to")
    chromium.show(pages[step], width=FRAME, framed=True)
    title = chromium.ask("page.querySelector('h1').textContent")
    assert chromium.ask("page.querySelector('main').firstElementChild.tagName") == "H1"
    chromium.ask("[...page.querySelectorAll('nav label')].at(-1).click()")
    deadline = time.monotonic() + 120
    last = "[...page.querySelectorAll('section')].at(-1).getBoundingClientRect().top"
    while not 0 <= chromium.ask(last) < 598 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert 0 <= chromium.ask(last) < 598 and chromium.ask("view.scrollY") > 0
    assert chromium.ask("page.querySelector('h1').textContent") == title


def test_the_committed_pictures_are_small() -> None:
    pictures = list((Path(__file__).parents[2] / "docs" / "pictures").glob("report-*.png"))
    assert len(pictures) >= 5 and all(picture.stat().st_size < 200_000 for picture in pictures)
