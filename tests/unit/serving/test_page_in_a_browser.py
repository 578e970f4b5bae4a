"""The page in Chromium: wide and narrow, light and dark, by keyboard alone, without a fault that axe finds."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tritower.serving import page

from tests.support.served import served
from tests.support.shelf import ADVERTS, Desk, Shelf
from tools import browser

pytestmark = pytest.mark.skipif(not browser.found(), reason="no Chromium here: apt-get install chromium")
LONG = (
    "Wissenschaftlicherverwaltungsfachangestellter" * 4,
    "W" * 200,
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch",
    None,
)
FOUND = "/?query=nurse&place=austin&user=u1"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server with long words among its jobs, and another version."""
    app = FastAPI()
    page.mount(app, Desk(Shelf((*ADVERTS, LONG)), Shelf((*ADVERTS, LONG), name="next", backwards=True)))
    failing = FastAPI()
    page.mount(failing, Desk(Shelf(error=ZeroDivisionError())))
    app.mount("/failing", failing)
    with served(app) as url:
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=browser.found(), args=["--no-sandbox"])
        yield one
        one.close()


def opened(chromium: Browser, address: str, *, width: int = 1_200, scheme: str = "light") -> Page:
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab = context.new_page()
    tab.set_default_timeout(120_000)
    tab.goto(address)
    return tab


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1_200, "light")])
def test_it_fits_and_axe_finds_nothing(chromium: Browser, address: str, width: int, scheme: str) -> None:
    tab = opened(chromium, address, width=width, scheme=scheme)
    for path in ("/", FOUND, "/?query=zeppelin&place=Atlantis&user=nobody", "/failing/?query=x"):
        tab.goto(address + path)
        tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, path
        if path == FOUND or width > 360:  # the others have no colours of their own
            found = Axe().run(tab)
            assert found.violations_count == 0, found.generate_report()
    tab.context.close()


def test_dark_is_dark_and_light_is_light(chromium: Browser, address: str) -> None:
    for scheme, darkest in (("light", False), ("dark", True)):
        tab = opened(chromium, address + FOUND, scheme=scheme)
        colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(int(part) for part in colour[4:-1].split(",")) < 200) is darkest, colour
        tab.context.close()


def test_a_search_by_keyboard_alone(chromium: Browser, address: str) -> None:
    """Nothing but keys, no script of the page, no complaint of the browser: what its policy forbids would be one."""
    context = chromium.new_context(viewport={"width": 1_200, "height": 800}, java_script_enabled=True)
    tab = context.new_page()
    tab.set_default_timeout(120_000)
    complaints: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(address)
    expect(tab.locator("#query")).to_be_focused(timeout=120_000)  # a browser sets the focus after the page has loaded
    tab.keyboard.type("nurse")
    tab.keyboard.press("Tab")
    tab.keyboard.type("Boston, MA")
    tab.keyboard.press("Tab")
    tab.keyboard.type("25")
    tab.keyboard.press("Tab")
    tab.keyboard.type("u1")
    with tab.expect_navigation():
        tab.keyboard.press("Enter")
    assert "query=nurse" in tab.url and tab.locator("h1").inner_text() == "Jobs for “nurse” within 25 km of Boston, MA"
    assert tab.locator(".jobs h2").first.inner_text() == "Registered Nurse - Nights"
    details = tab.locator("details").first
    assert details.get_attribute("open") is None and not tab.get_by_text("it is far from the place").first.is_visible()
    for _ in range(12):  # past the name and the fields to the first reason
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Enter")
    expect(details).to_have_attribute("open", "", timeout=120_000)
    assert tab.get_by_text("it is far from the place").first.is_visible()
    widths = details.locator("td rect:not(.axis)").evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
    assert max(widths) > 50 and len(widths) == 7
    assert complaints == [] and all(url.startswith((address, "data:")) for url in asked)
    assert tab.evaluate("document.scripts.length") == 0
    context.close()


def test_no_script_gets_past_the_policy(chromium: Browser, address: str) -> None:
    """Were a title to become markup, the browser would still run nothing of it."""
    tab = opened(chromium, address + FOUND)
    tab.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\"><p style=\"color:red\">')"
    )
    tab.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 2'}))")
    tab.wait_for_timeout(200)
    assert tab.evaluate("window.ran === undefined")
    assert tab.evaluate("getComputedStyle(document.body.querySelector(':scope > p')).color") != "rgb(255, 0, 0)"
    tab.context.close()
