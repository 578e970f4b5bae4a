"""Ids that two tables spell in two ways.

One source writes a UUID with dashes, another without, a third in capitals; a text export keeps the blanks around a key. An
impression's job or user that nobody knows under its spelling takes the spelling of the one job or user that it can only be.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from tritower.engines.protocol import Engine
from tritower.schema import RAW_IMPRESSIONS

_UUID = r"(?i)^(urn:uuid:)?\{?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\}?$"
_PLAIN_SCHEMA = pa.schema([("id", pa.string()), ("plain", pa.string())])


def match(engine: Engine) -> dict[str, int]:
    """`c_impressions` -> `m_impressions`, with the ids of `u_jobs` and `u_users`; return the rows changed, by column."""
    changed = {key: _aliases(engine, table, key) for table, key in (("u_jobs", "job_id"), ("u_users", "user_id"))}
    used = [key for key, rows in changed.items() if rows]
    every = [name for name in RAW_IMPRESSIONS.names() if name not in used] + ["seq", "mended", "reason"]
    picked = [f"c.{name}" for name in every] + [f"coalesce(a_{key}.id, c.{key}) AS {key}" for key in used]
    joins = " ".join(f"LEFT JOIN alias_{key} a_{key} ON c.{key} = a_{key}.written" for key in used)
    engine.sql("m_impressions", f"SELECT {', '.join(picked)} FROM c_impressions c {joins}")
    return {key: changed[key] for key in used}


def _aliases(engine: Engine, table: str, key: str) -> int:
    """Name `alias_<key>`: an id as impressions write it, and as `table` does; return how many impressions have one."""
    strange = engine.map_batches(
        f"strange_{key}",
        f"""SELECT DISTINCT c.{key} AS id FROM c_impressions c ANTI JOIN {table} t ON c.{key} = t.{key}
        WHERE c.reason IS NULL""",
        _plain,
        _PLAIN_SCHEMA,
    )
    if not strange or not engine.map_batches(f"plain_{key}", f"SELECT t.{key} AS id FROM {table} t", _plain, _PLAIN_SCHEMA):
        return 0
    found = engine.keep(
        f"alias_{key}",
        f"""SELECT s.id AS written, min(p.id) AS id FROM strange_{key} s JOIN plain_{key} p ON s.plain = p.plain
        GROUP BY s.id HAVING count(*) = 1""",
    )
    if not found:
        return 0
    counted = f"SELECT count(*) AS n FROM c_impressions c JOIN alias_{key} a ON c.{key} = a.written WHERE c.reason IS NULL"
    return int(engine.rows(counted)[0]["n"])


def _plain(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Kernel: ids, and what all spellings of an id have in common."""
    for batch in batches:
        trimmed = pc.utf8_trim_whitespace(batch["id"])
        digits = pc.replace_substring_regex(pc.utf8_lower(trimmed), r"urn:uuid:|[{}-]", "")
        plain = pc.if_else(pc.match_substring_regex(trimmed, _UUID), digits, trimmed)
        yield pa.RecordBatch.from_arrays([batch["id"], plain], schema=_PLAIN_SCHEMA)
