"""The search from the command line: `python -m tritower.tuning --features ... --embeddings ... --best ... --report ...`."""

import argparse
import json
import logging
import sys

from tritower import child, logs
from tritower.config import from_dict
from tritower.errors import TritowerError


def main() -> int:
    """Search; returns the exit code (1 for an expected error, logged in one line)."""
    parser = argparse.ArgumentParser(
        prog="python -m tritower.tuning",
        description="Search the ranker's knobs. A location is a path, file://, s3://, minio:// or gs://.",
    )
    parser.add_argument("--features", required=True, help="location of the features step's output")
    parser.add_argument("--embeddings", required=True, help="location of the encoder's matrix")
    parser.add_argument("--best", required=True, help="location of the JSON file to write: the best knobs and every trial")
    parser.add_argument("--report", required=True, help="location of the HTML file to write")
    parser.add_argument("--config", default="{}", help="knobs of TuningConfig as JSON")
    values = vars(parser.parse_args())
    logs.setup()
    from tritower.tuning import step
    from tritower.tuning.config import TuningConfig

    try:
        config = from_dict(TuningConfig, values.pop("config"))
        numbers = step.run(config=config, **values)
    except TritowerError as error:
        logging.getLogger(__name__).error("%s: %s", type(error).__name__, error)
        child.report(error)
        return 1
    json.dump(numbers, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
