"""Draw a run's reports as they look in the frame of Kubeflow's pages, 427 x 598 pixels, and in a window.

    python -m pipelines demo --out build/demo && python -m tools.pictures build/demo

Reads the newest report of each kind below the folder and writes docs/pictures/report-*.png. Needs Chromium.
"""

import argparse
import sys
from pathlib import Path

from tools.browser import Browser

FRAME = (427, 598)
WINDOW = (1080, 760)
LARGEST = 200_000  # bytes of a picture, so that the repository stays small
REPORTS = {
    "ingest": "ingest_report",
    "encoder": "finetune_report",
    "tuning": "tune_report",
    "evaluation": "report",
    "recommendations": "recommendations_report",
}
"""Picture -> the name of the output that holds the report."""
_SCROLLED = "[...page.querySelectorAll('figure')][0].scrollIntoView()"


def main() -> int:
    """Draw; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a demo or a run")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    found = {name: path for name, output in REPORTS.items() if (path := newest(options.folder, output))}
    if not found:
        print(f"{options.folder}: no report is below it; give the folder of a demo or a run", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    with Browser() as browser:
        for name, path in found.items():
            html = path.read_text(encoding="utf-8")
            browser.show(html, width=FRAME[0], height=FRAME[1])
            write(options.out / f"report-{name}.png", browser.picture())
            if browser.ask("page.querySelectorAll('section details[open] figure').length"):
                browser.ask(_SCROLLED)
                write(options.out / f"report-{name}-plots.png", browser.picture())
            if name == "evaluation":
                browser.show(html, width=WINDOW[0], height=WINDOW[1])
                write(options.out / f"report-{name}-window.png", browser.picture())
    return 0


def newest(folder: Path, output: str) -> Path | None:
    """The newest artifact of this name; a file, as the local runner keeps it."""
    files = (path for path in folder.rglob(output) if path.is_file())
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def write(path: Path, picture: bytes) -> None:
    """Write a picture that is not too large, and say so."""
    if len(picture) > LARGEST:
        raise SystemExit(f"{path}: {len(picture):,} bytes are more than {LARGEST:,}")
    path.write_bytes(picture)
    print(f"{path}: {len(picture):,} bytes")


if __name__ == "__main__":
    sys.exit(main())
