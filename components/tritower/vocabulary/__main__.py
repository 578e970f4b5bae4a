"""`python -m tritower.vocabulary build --source DIR`: rebuild the package's Parquet tables from the raw lists."""

import argparse
import logging
from pathlib import Path

from tritower import logs
from tritower.vocabulary.build import build


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tritower.vocabulary", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="write the Parquet tables")
    command.add_argument("--source", type=Path, required=True, help="folder with the raw lists (see ATTRIBUTION.md)")
    command.add_argument("--target", type=Path, default=Path(__file__).parent / "data", help="where the tables go")
    arguments = parser.parse_args()
    logs.setup()
    with logs.phase(logging.getLogger(__name__), "build vocabulary") as counts:
        counts.update(build(arguments.source, arguments.target))


if __name__ == "__main__":
    main()
