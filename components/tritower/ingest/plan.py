"""What is to be read of each source, and what the impressions are a log of: said before anything is read."""

import difflib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tritower.errors import SchemaError
from tritower.ingest import rows, sources
from tritower.ingest.config import IngestConfig
from tritower.ingest.listing import LeftOut
from tritower.schema import RAW_IMPRESSIONS, Table

_log = logging.getLogger(__name__)
_NAMED = 5
_CLICKED = "clicked"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One source: its pieces as sources.Source, source name -> our name, and the (renamed) columns of each file.

    `shadowed` are columns that folders give and files have as well.
    """

    table: Table
    uri: str
    pieces: list[dict[str, Any]]
    rename: dict[str, str]
    columns: dict[str, set[str]]
    left_out: list[LeftOut]
    shadowed: set[str]
    unused: set[str]

    def as_table(self) -> pa.Table:
        """The pieces as sources.SPLIT_SCHEMA."""
        return pa.Table.from_pylist(self.pieces, schema=sources.SPLIT_SCHEMA)


def make(table: Table, uri: str, config: IngestConfig) -> Plan:
    """List the files of a source and their columns.

    Raises:
        StorageError: a location cannot be read.
        DataError: a file is broken, or there is none.
        SchemaError: two columns of a file have one name, as they stand or by the knob rename.
    """
    rename = {key.split(".", 1)[1]: name for key, name in (config.rename or {}).items() if key.split(".", 1)[0] == table.name}
    wanted = frozenset({*table.names(), *rename})
    source = sources.plan(uri, wanted)
    columns: dict[str, set[str]] = {}
    shadowed, unused = set(), set(rename)
    for piece in source.pieces:
        if piece["file"] not in columns:
            own = sources.columns(piece)
            given = sources.partition(piece).keys()
            names = own + [name for name in given if name not in own]
            columns[piece["file"]] = _renamed(names, rename, piece["file"])
            shadowed |= given & set(own)
            unused -= set(names)
    return Plan(
        table=table,
        uri=uri,
        pieces=source.pieces,
        rename=rename,
        columns=columns,
        left_out=source.left_out,
        shadowed=shadowed,
        unused=unused,
    )


def _renamed(names: list[str], rename: dict[str, str], file: str) -> set[str]:
    found: dict[str, str] = {}
    for name in names:
        ours = rename.get(name, name)
        if ours in found:
            raise SchemaError(
                f"columns {found[ours]!r} and {name!r} would both be {ours!r} by the knob rename",
                where=file,
                remedy=f"Drop one of them, or rename {ours!r} to another name as well.",
            )
        found[ours] = name
    return set(found)


def is_views(plan: Plan, config: IngestConfig) -> bool:
    """Whether every row of the impressions is a view: as the knobs say, else where no file has a column like `clicked`."""
    if config.log != "auto" or config.negatives > 0:
        return config.log == "views" or config.negatives > 0
    names = set().union(*plan.columns.values())
    return _CLICKED not in names and nearest(_CLICKED, names - set(plan.table.names())) is None


def check(plan: Plan, *, views: bool) -> None:
    """See that every file has the columns it needs. JSON objects may lack `clicked` where others have it: no click.

    Raises:
        SchemaError: a file lacks a required column.
    """
    of_impressions = plan.table is RAW_IMPRESSIONS
    has_clicked = any(_CLICKED in names for names in plan.columns.values())
    formats = {piece["file"]: piece["format"] for piece in plan.pieces}
    optional: tuple[str, ...]
    for file, names in plan.columns.items():
        optional = rows.VIEWS_MAY_LACK if of_impressions and views else ()
        if of_impressions and not views and has_clicked and formats[file] == "jsonl":
            optional = (_CLICKED,)
        _require(names, plan, file, optional)


def _require(present: set[str], plan: Plan, file: str, optional: tuple[str, ...]) -> None:
    for column in plan.table.columns:
        if column.required and column.name not in present and column.name not in optional:
            near = nearest(column.name, present - set(plan.table.names()))
            others = sum(column.name in names for names in plan.columns.values())
            hint = f"Did you mean {near!r}? " if near else f"It has: {', '.join(sorted(present))}. "
            also = f", which {others} of the other files have" if others else ""
            leave = "Leave the file out, or rename" if others else "Rename"
            raise SchemaError(
                f"column {column.name!r} is missing{also}",
                where=file,
                remedy=f"{hint}{leave} it in the source or by the knob rename"
                f' ("{plan.table.name}.<source name>": "{column.name}").',
            )


def nearest(name: str, names: set[str]) -> str | None:
    """The one of `names` that is most like `name` whatever its case and underscores; None when none is."""
    plain = {other.lower().replace("_", ""): other for other in sorted(names)}
    near = difflib.get_close_matches(name.replace("_", ""), plain, n=1, cutoff=0.6)
    return plain[near[0]] if near else None


def announce(plans: Iterable[Plan], *, views: bool, drawn: int) -> None:
    """Say what the impressions are a log of, then which files are not read, and which columns some files lack."""
    if views:
        _log.info("a log of views: every row is taken for a view, %d jobs are drawn for each (knob log)", drawn)
    else:
        _log.info("a log of impressions: `clicked` says which of the rows were chosen (knob log)")
    for plan in plans:
        table = plan.table.name
        data = [f"{_below(plan, left.file)} ({left.reason})" for left in plan.left_out if not left.is_marker]
        if data:
            _log.warning("%s: %d files are left out: %s", table, len(data), _some(data))
        for column in plan.table.names():
            lacking = [_below(plan, file) for file, names in plan.columns.items() if column not in names]
            if 0 < len(lacking) < len(plan.columns):
                _log.info(
                    "%s: %r is missing in %d of %d files: %s", table, column, len(lacking), len(plan.columns), _some(lacking)
                )
        if plan.shadowed:
            _log.warning(
                "%s: the files' own columns are read, not those of their folders: %s", table, _some(sorted(plan.shadowed))
            )
        if plan.unused:
            _log.warning("%s: no file has what the knob rename names: %s", table, _some(sorted(plan.unused)))


def _below(plan: Plan, file: str) -> str:
    return file[len(plan.uri.rstrip("/")) :].strip("/") or file


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
