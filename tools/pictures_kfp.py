"""Draw Kubeflow's own pages of a published pipeline and a run of it into docs/pictures (needs Chromium and a UI at hand).

python -m tools.pictures_kfp --ui http://localhost:3000 --run RUN
"""

import argparse
import json
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.browser import Browser

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH, HEIGHT = 1400, 900
SMALL = 0.6
"""The scale of pictures of a graph: the page shows no more of it at once than its smallest zoom lets it."""
PATIENCE_S, SETTLE_S = 60.0, 6.0


@dataclass(frozen=True)
class Page:
    """A page of the UI."""

    place: str
    """What follows the `#/` of its address."""

    text: str
    """Is there once the page is drawn."""

    clicks: tuple[str, ...] = ()
    """Texts to click on, one after the other."""

    to: str = ""
    """A text to scroll to."""

    scale: float = 1
    """Of the picture."""


def main() -> int:
    """Draw; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ui", required=True, help="address of Kubeflow's web page; its API is behind the same address")
    parser.add_argument("--run", required=True, help="id of a run of a published version")
    given = parser.parse_args()
    run = ask(f"{given.ui}/apis/v2beta1/runs/{given.run}")
    version = run["pipeline_version_reference"]
    pipeline, version_id = version["pipeline_id"], version["pipeline_version_id"]
    pages = {
        "kfp-upload": Page("pipelines", "training"),
        "kfp-graph": Page(f"pipelines/details/{pipeline}/version/{version_id}", "recommendations", scale=SMALL),
        "kfp-form": Page(
            f"runs/new?pipelineId={pipeline}&pipelineVersionId={version_id}", "Run parameters", to="Run parameters"
        ),
        "kfp-run": Page(f"runs/details/{given.run}", "evaluation", scale=SMALL),
        "kfp-report": Page(f"runs/details/{given.run}", "evaluation", clicks=("report", "Visualization")),
        "kfp-metrics": Page(f"runs/details/{given.run}", "evaluation", clicks=("metrics", "Visualization")),
        "kfp-schedule": Page("recurringruns", "Trigger"),
    }
    with Browser() as browser:
        for name, page in pages.items():
            draw(browser, given.ui, page, PICTURES / f"{name}.png")
            print(PICTURES / f"{name}.png")
    return 0


def draw(browser: Browser, ui: str, page: Page, path: Path) -> None:
    """A picture of a page of the UI, once it is drawn and the clicks have been made."""
    browser.visit("about:blank", width=WIDTH, height=HEIGHT)
    browser.visit(f"{ui}/#/{page.place}", width=int(WIDTH / page.scale), height=int(HEIGHT / page.scale), scale=page.scale)
    until(browser, f"document.body.innerText.includes({json.dumps(page.text)})")
    time.sleep(SETTLE_S)
    for one in page.clicks:
        until(browser, f"{leaves(one)}.length > 0")
        browser.ask(f"({leaves(one)}[0].click(), 1)")
        time.sleep(SETTLE_S)
    if page.to:
        browser.ask(f"({leaves(page.to)}[0].scrollIntoView(), 1)")
        time.sleep(SETTLE_S)
    path.write_bytes(browser.picture())


def leaves(text: str) -> str:
    """The elements that hold this text and nothing else, as an expression."""
    every = "[...document.querySelectorAll('span,div,button')]"
    return f"{every}.filter(e => !e.children.length && e.textContent === {json.dumps(text)})"


def until(browser: Browser, true: str) -> None:
    """Wait for an expression of the page's to be true."""
    end = time.monotonic() + PATIENCE_S
    while not browser.ask(true):
        if time.monotonic() > end:
            raise TimeoutError(f"the page does not come to {true}")
        time.sleep(0.5)


def ask(url: str) -> Any:
    """The JSON behind an address."""
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - the address is the caller's
        return json.load(response)


if __name__ == "__main__":
    sys.exit(main())
