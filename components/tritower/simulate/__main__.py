"""Write a log, or look up the truth of pairs in it.

python -m tritower.simulate --out DIR [--preset NAME] [--config FILE] [--impressions N] [--seed S] [--days D] [--bad-rows SHARE]
        [--set KNOB=VALUE ...]
python -m tritower.simulate truth --log DIR --recommendations FILE --out FILE
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tritower import child, logs
from tritower import config as knobs
from tritower.errors import ConfigError, TritowerError
from tritower.simulate.config import PRESETS, SimulateConfig


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status."""
    logs.setup()
    try:
        if arguments[:1] == ["truth"]:
            _truth(arguments[1:])
        else:
            _generate(arguments)
    except TritowerError as error:
        print(f"error: {error}", file=sys.stderr)
        child.report(error)
        return 1
    return 0


def _generate(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tritower.simulate", description="Write a simulated job board's log.")
    parser.add_argument("--out", required=True, help="directory to write; replaced when it exists")
    parser.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="a size: " + ", ".join(f"{k} {v['impressions']:,}" for k, v in PRESETS.items()),
    )
    parser.add_argument("--config", help="TOML file with any knob of SimulateConfig")
    for name, kind in (("impressions", int), ("seed", int), ("days", int), ("bad-rows", float)):
        parser.add_argument(f"--{name}", type=kind, help=f"knob `{name.replace('-', '_')}`")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help="any knob of SimulateConfig")
    given = vars(parser.parse_args(arguments))
    values = dict(PRESETS.get(given["preset"], {})) | _toml(given["config"])
    values |= {k: given[k] for k in ("impressions", "seed", "days", "bad_rows") if given[k] is not None}
    values |= dict(_pair(text) for text in given["set"])
    from tritower.simulate import step

    facts = step.run(out=given["out"], config=knobs.from_dict(SimulateConfig, values))
    print(json.dumps(facts, indent=2))


def _truth(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tritower.simulate truth",
        description="Add the column `true_probability` to rows with request_id and job_id.",
    )
    parser.add_argument("--log", "--world", dest="world", required=True, help="the log's directory, or its `world` folder")
    parser.add_argument("--impressions", help="the log's impressions, to check that they belong to the world")
    parser.add_argument("--recommendations", required=True, help="Parquet file with request_id and job_id")
    parser.add_argument("--out", required=True, help="Parquet file to write")
    from tritower.simulate import truth

    truth.add(**vars(parser.parse_args(arguments)))


def _pair(text: str) -> tuple[str, str]:
    knob, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r} is not KNOB=VALUE", where="--set", remedy="Write for example --set randomised_share=0.3.")
    return knob.strip(), value.strip()


def _toml(path: str | None) -> dict[str, object]:
    if path is None:
        return {}
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the file cannot be read: {error}", where=path, remedy="Give a TOML file of knobs.") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
