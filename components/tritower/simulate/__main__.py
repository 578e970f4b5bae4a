"""`python -m tritower.simulate --out DIR` writes a log."""

import argparse
import json
import sys

from tritower import config as knobs
from tritower import logs
from tritower.simulate.config import SimulateConfig


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tritower.simulate", description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--days", type=int)
    arguments = parser.parse_args()
    logs.setup()
    from tritower.simulate import step

    values = {k: v for k, v in vars(arguments).items() if k != "out" and v is not None}
    facts = step.run(out=arguments.out, config=knobs.from_dict(SimulateConfig, values))
    json.dump(facts, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
