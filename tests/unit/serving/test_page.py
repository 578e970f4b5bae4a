"""The page as HTML: what each search reads like, and that nothing of a log or an address becomes markup."""

import re
from html.parser import HTMLParser

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tritower.errors import ConfigError, StorageError
from tritower.serving import page
from tritower.serving.messages import Filters, Near, Question
from tritower.serving.refusal import Refusal

from tests.support.shelf import ADVERTS, DAY_US, Desk, Shelf

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "javascript:alert(1)",
    "\u202egnp.exe\x00\ud800",
    "A" * 5_000,
    "'; DROP TABLE jobs; --",
    "</title></style><svg/onload=alert(1)>",
)
KNOWN_TAGS = {
    *("html", "head", "meta", "title", "link", "body", "header", "main", "footer", "aside", "section", "div", "p", "ul", "ol"),
    *("li", "h1", "h2", "h3", "a", "b", "small", "span", "bdi", "code", "form", "label", "input", "button", "datalist"),
    *("option", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "svg", "path", "rect"),
}


class Markup(HTMLParser):
    """Tags, and attributes that could run something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.risky: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.risky += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.risky += [value or "" for name, value in attrs if name in ("href", "src", "action") and "script:" in (value or "")]


def client(shelf: Shelf | None = None, other: Shelf | None = None) -> TestClient:
    app = FastAPI()
    page.mount(app, Desk(shelf or Shelf(), other))
    return TestClient(app, raise_server_exceptions=False)


def words(html: str) -> str:
    """What is read."""
    return " ".join(re.sub(r"<[^>]+>", " ", html.split("<body>")[1]).split())


def test_a_search_shows_jobs_chances_and_reasons() -> None:
    shelf = Shelf()
    answer = client(shelf).get("/", params={"query": "icu nurse", "place": "austin", "user": "u1"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    read = words(answer.text)
    first = read.index("ICU Nurse Mercy Clinics · Austin, TX · 1 week old".replace("1 week", "9 days"))
    assert first < read.index("Registered Nurse - Nights") and "45 % about 4 in 10 click it" in read
    assert "because it means what the search means and its words are those of the search" in read
    assert "What is known of u1" in read and "Clicked 2 jobs" in read and "a job that is gone 10 days ago" in read
    assert "As of 11 January 1970" in read
    [asked] = shelf.asked
    assert asked == Question(
        query="icu nurse", user_id="u1", city="Austin", region="TX", country="US", k=page.SHOWN, explain=True,
        ts=10 * DAY_US + 1, request_id=asked.request_id,
    )  # fmt: skip
    assert asked.request_id in read


def test_jobs_within_a_distance() -> None:
    shelf = Shelf()
    asked = {"query": "nurse", "place": "austin", "km": " 12,5 "}
    read = words(client(shelf).get("/", params=asked).text)
    assert "Jobs for “nurse” within 12.5 km of Austin, TX" in read
    assert shelf.asked[-1].filters == Filters(near=Near(km=12.5)) and shelf.asked[-1].city == "Austin"
    for km, place, said in (
        ("far", "austin", "“far” is no distance in kilometres: jobs at any distance are shown."),
        ("-3", "austin", "“-3” is no distance"),
        ("nan", "austin", "“nan” is no distance"),
        ("20041", "austin", "“20041” is no distance"),
        ("5", "", "A distance needs a place: jobs at any distance are shown."),
        ("5", "Atlantis", "No job is in a place called “Atlantis”"),
    ):
        assert said in words(client(shelf).get("/", params={"query": "nurse", "place": place, "km": km}).text)
        assert shelf.asked[-1].filters == Filters()
    assert 'name="km"' in client(shelf).get("/").text
    shelf.has_places = False  # a bundle of before there were coordinates
    assert 'name="km"' not in client(shelf).get("/").text
    client(shelf).get("/", params=asked)
    assert shelf.asked[-1].filters == Filters()


def test_another_version_stands_beside() -> None:
    read = words(client(Shelf(), Shelf(name="next", backwards=True)).get("/?query=nurse").text)
    assert "Version “next” would show" in read and "Version “next”: 3rd" in read
    assert "Home Health Aide Good Hands · here 3rd" in read
    assert "would show" not in words(client().get("/?query=nurse").text)


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("/", "Which job would they click? Type a search."),
        ("/?query=&place=&user=", "No words were given: the jobs are ranked by all else that is known."),
        (
            "/?query=nurse&place=Atlantis",
            "No job is in a place called “Atlantis”: the jobs are ranked without a place. Try Austin, TX",
        ),
        ("/?query=nurse&user=nobody", "Nothing is known of a user “nobody”: the jobs are ranked as for somebody new."),
        ("/?query=zeppelin", "No job fits this search. Try fewer or other words, another place or none."),
        ("/?nothing=1", "No words were given"),
        ("/?query=nurse&query=icu", "Jobs for “icu”"),
    ],
)
def test_searches_that_lack_something_read_well(address: str, wanted: str) -> None:
    answer = client().get(address)
    assert answer.status_code == 200
    assert wanted in words(answer.text)


def test_an_example_is_a_search() -> None:
    desk = client()
    found = re.findall(r'<li><a href="\./(\?[^"]+)"', desk.get("/").text)
    assert len(found) == 1
    assert "What is known of u1" in words(desk.get("/" + found[0].replace("&amp;", "&")).text)


@pytest.mark.parametrize(
    ("error", "status", "wanted"),
    [
        (Refusal(503, "64 requests wait", remedy="Try again in a moment."), 503, "64 requests wait. Try again in a moment."),
        (ConfigError("k is 0", where="k", remedy="Give 1 or more."), 422, "K is 0. Give 1 or more."),
        (StorageError("the disk <fails>"), 503, "The disk &lt;fails&gt;."),
        (ZeroDivisionError("secret"), 500, "The server failed."),
    ],
)  # fmt: skip
def test_an_error_is_a_page_that_says_what_to_do(error: Exception, status: int, wanted: str) -> None:
    answer = client(Shelf(error=error)).get("/?query=nurse&place=Austin")
    assert answer.status_code == status
    read = words(answer.text)
    assert "This search got no answer" in read and wanted in read and "secret" not in read and "Request " in read
    assert 'value="nurse"' in answer.text and 'value="Austin"' in answer.text  # nothing has to be typed again
    assert answer.headers["content-security-policy"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_markup(text: str) -> None:
    shelf = Shelf(tuple((text, text, text, text) for _ in range(2)) + ADVERTS, name=text)
    desk = client(shelf, Shelf(shelf.adverts, name=text))
    sent = text.encode("utf-8", "surrogatepass").decode("latin-1")
    plain = {"query": "icu", "place": "austin", "user": "u1"}
    for params in ({"query": "", "place": text[:50]}, {"query": sent}, {"user": sent}, {"place": sent}, plain):
        params = {name: value.encode("utf-8", "replace") for name, value in params.items()}
        answer = desk.get("/", params=params)
        assert answer.status_code == 200
        seen = Markup()
        seen.feed(answer.text)
        assert seen.tags <= KNOWN_TAGS and seen.risky == []
        assert "{{" not in text or text in answer.text  # not rendered
        assert "\u202e" not in answer.text and "\x00" not in answer.text
        assert len(answer.content) < 60_000


def test_the_address_may_hold_anything() -> None:
    for raw in (
        "/?query=%ff%fe",
        "/?query=%00",
        "/?query",
        "/?%3Cscript%3E=1",
        "/?query=" + "x" * 3_000,
        "/?query=%F0%9F%91%A9",
    ):
        answer = client().get(raw)
        assert answer.status_code == 200 and "<script" not in answer.text
    asked = Shelf()
    client(asked).get("/?query=" + "x" * 3_000)
    assert len(asked.asked[0].query) == page.LONGEST


def test_headers_let_a_browser_load_its_style_sheet_and_no_more() -> None:
    desk = client()
    answer = desk.get("/")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["style-src"] == policy["form-action"] == "'self'" and "unsafe" not in str(policy)
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store" and "set-cookie" not in answer.headers
    [address] = re.findall(r'<link rel="stylesheet" href="([^"]+)"', answer.text)
    style = desk.get("/" + address)
    assert style.headers["content-type"].startswith("text/css") and "immutable" in style.headers["cache-control"]
    assert "prefers-color-scheme: dark" in style.text and "url(" not in style.text and "@import" not in style.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_the_page_can_only_be_read(method: str) -> None:
    assert client().request(method, "/").status_code == 405
    assert client().request(method, "/page.css").status_code == 405
