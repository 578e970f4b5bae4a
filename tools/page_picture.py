"""Draw the server's page, wide and light, narrow and dark: docs/pictures/page-*.png, for the README.

    make demo && python -m pipelines serve --port 8080 &
    python -m tools.page_picture http://127.0.0.1:8080

Asks the first of the searches that the page itself proposes. Needs Chromium.
"""

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

from tools.browser import found
from tools.pictures import write

_WAIT_MS = 120_000  # the first search of a server may compile


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of a server")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found(), args=["--no-sandbox"])
        for name, width, height, scheme in (("light", 1200, 900, "light"), ("dark-narrow", 360, 780, "dark")):
            tab = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()  # type: ignore[arg-type]
            tab.set_default_timeout(_WAIT_MS)
            tab.goto(options.address)
            tab.locator(".try a").first.click()
            tab.locator("summary").first.click()
            tab.locator("h1").click()  # the focus leaves the reason
            write(options.out / f"page-{name}.png", tab.screenshot())


if __name__ == "__main__":
    main()
