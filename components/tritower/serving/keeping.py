"""Commands for what a server has written: `forget`, `expire`, `shown`."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritower.config import from_dict


def arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to a parser."""
    forget = commands.add_parser("forget", help="remove a person from state, catalogue, journal and log")
    forget.add_argument("user", help="the person's user_id")
    expire = commands.add_parser("expire", help="remove what is older than its time")
    expire.add_argument("--retention", default="{}", help="knobs of Retention as JSON: days for each")
    for command in (forget, expire):
        command.add_argument("--bundle", default="", help="folder of a bundle, or of a state, on this machine")
    shown = commands.add_parser("shown", help="raw impressions of what was served and clicked, for ingest and for analyses")
    shown.add_argument("--out", required=True, help="folder to write")
    for name in ("since", "until"):
        shown.add_argument(f"--{name}", default="", help="time of the search, ISO 8601; UTC where no zone is given")
    for command in (forget, expire, shown):
        command.add_argument("--journal", default="", help="location of the journal of events")
        command.add_argument("--served", default="", help="location of the log of what was served")


def run(values: Mapping[str, Any]) -> int:
    """Run one of them; 0."""
    return {"forget": _forget, "expire": _expire, "shown": _shown}[values["command"]](values)


def _forget(values: Mapping[str, Any]) -> int:
    from tritower.serving import forgetting

    places = {"folder": values["bundle"], "journal_at": values["journal"], "served_at": values["served"]}
    removed = forgetting.forget(values["user"], **places)
    print("Removed:")
    for line in removed.lines():
        print(f"  {line}")
    print("Not reached:")
    for line in forgetting.BEYOND_REACH:
        print(f"  {line}")
    if missing := [name for name in ("bundle", "journal", "served") if not values[name]]:
        print(f"  {' and '.join(missing)}: not named (--{', --'.join(missing)})")
    return 0


def _expire(values: Mapping[str, Any]) -> int:
    from tritower.serving import retention

    keep = from_dict(retention.Retention, values["retention"], where="retention")
    places = {"journal_at": values["journal"], "served_at": values["served"], "folder": values["bundle"]}
    print(", ".join(f"{name} {value}" for name, value in dataclasses.asdict(retention.expire(keep, **places)).items()))
    return 0


def _shown(values: Mapping[str, Any]) -> int:
    from tritower.serving import shown

    bounds = {name: shown.moment(values[name]) for name in ("since", "until") if values[name]}
    counts = shown.write(served_at=values["served"], journal=values["journal"], out=Path(values["out"]), **bounds)
    print(", ".join(f"{name} {value:,}" for name, value in counts.items()))
    return 0
