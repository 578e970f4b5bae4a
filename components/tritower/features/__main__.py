"""Command line of the feature step: `python -m tritower.features audit | run | table`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritower import logs
from tritower.config import from_dict
from tritower.errors import TritowerError

if TYPE_CHECKING:
    from tritower.features.audit import Report

BEGIN, END = "<!-- features: begin -->", "<!-- features: end -->"


def main() -> int:
    """Run one verb; 0 on success, 1 when an audit found something, 2 on an error."""
    parser = argparse.ArgumentParser(prog="python -m tritower.features", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="compute features")
    audit = verbs.add_parser("audit", help="recompute random rows by brute force, and shuffle later labels")
    for verb in (run, audit):
        verb.add_argument("--dataset", required=True, help="folder that ingest wrote")
        verb.add_argument("--embeddings", required=True, help="folder that the encoder wrote")
        verb.add_argument("--features", required=True, help="folder of features, to write or to audit")
        verb.add_argument("--entities", help="folder that the entities step wrote")
    run.add_argument("--candidates", help="featurise these rows instead of the impressions")
    run.add_argument("--previous", help="state or features of an earlier run, to continue from")
    run.add_argument("--config", default="{}", help="knobs as JSON")
    audit.add_argument("--rows", type=int, default=200, help="rows to recompute")
    audit.add_argument("--seed", type=int, default=0)
    audit.add_argument("--limit", type=float, default=0.9, help="AUC from which one column is too good to be true")
    table = verbs.add_parser("table", help="print the table of all features")
    table.add_argument("--write", action="store_true", help="put it into the README of this package")
    arguments: dict[str, Any] = vars(parser.parse_args())
    logs.setup()
    try:
        verbs_by_name: dict[str, Callable[..., int]] = {"run": _run, "audit": _audit, "table": _table}
        return verbs_by_name[arguments.pop("verb")](**arguments)
    except TritowerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(*, config: str, **places: str) -> int:
    from tritower.features import step
    from tritower.features.config import FeaturesConfig

    numbers = step.run(**places, config=from_dict(FeaturesConfig, config))
    print(", ".join(f"{name} {value:g}" for name, value in numbers.items()))
    return 0


def _audit(**arguments: str | float) -> int:
    from tritower.features import audit

    _print_audit(report := audit.run(**arguments))  # type: ignore[arg-type]
    print("clean" if report.clean else "LEAK" if report.mismatches or report.leaking else "SUSPICIOUS")
    return 0 if report.clean else 1


def _print_audit(report: "Report") -> None:
    print(
        f"{report.rows} rows x {report.features} features recomputed by brute force: {len(report.mismatches)} features differ"
    )
    for name, (count, (row, stored, recomputed)) in report.mismatches.items():
        print(f"  {name}: {count} rows, e.g. row {row}: stored {stored}, from earlier events {recomputed}")
    print(f"{report.shuffled_rows} rows compared with later labels shuffled: {len(report.leaking)} features changed")
    for name in report.leaking:
        print(f"  {name}")
    print(f"features and ids one by one against the clicks: {len(report.telling)} too good to be true")
    for told in report.telling:
        print(f"  {told}")
    if report.telling:
        print("  Are there ids that only clicked rows have, or a column that is written after the click? Mend the log.")
    if report.unknown:
        print(f"not recomputed, unknown to tritower: {', '.join(report.unknown)}")
    if report.unaudited:
        print(f"not audited, no feature: {', '.join(report.unaudited)}")


def _table(*, write: bool) -> int:
    from tritower.features import catalogue

    if not write:
        print(catalogue.markdown(), end="")
        return 0
    readme = Path(__file__).with_name("README.md")
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n{catalogue.markdown()}{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
