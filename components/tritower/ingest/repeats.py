"""Rows that say again what another row said: equal ones are dropped, clicks are merged, contradictions are refused."""

from tritower.engines.protocol import Engine
from tritower.ingest.tables import UNKNOWN_JOB
from tritower.schema import Table


def unique_rows(engine: Engine, table: Table) -> int:
    """Split `c_<table>` by its key: `u_<table>` holds the first row of each key; return how many equal rows were dropped.

    A later row of the same key that says something else goes to `late_<table>` as duplicate_id.
    """
    name, key = table.name, table.key[0]
    every = ", ".join(table.names())
    engine.keep(
        f"again_{name}",
        f"""SELECT c.seq, c.{key}, c.nth, c.nth_equal FROM (
            SELECT seq, {key}, row_number() OVER (PARTITION BY {key} ORDER BY seq) AS nth,
                   row_number() OVER (PARTITION BY {every} ORDER BY seq) AS nth_equal
            FROM c_{name} WHERE reason IS NULL
              AND {key} IN (SELECT {key} FROM c_{name} WHERE reason IS NULL GROUP BY {key} HAVING count(*) > 1)
        ) c WHERE c.nth > 1""",
    )
    engine.sql(
        f"late_{name}",
        f"SELECT seq, 'duplicate_id' AS reason, concat('{key} = ', {key}) AS detail FROM again_{name} WHERE nth_equal = 1",
    )
    engine.sql(f"u_{name}", f"SELECT c.* FROM c_{name} c ANTI JOIN again_{name} a ON c.seq = a.seq WHERE c.reason IS NULL")
    return int(engine.rows(f"SELECT count(*) AS n FROM again_{name} WHERE nth_equal > 1")[0]["n"])


def unique_impressions(engine: Engine) -> dict[str, int]:
    """`i_impressions` -> `u_impressions`, one row per request and job; return how many rows were `deduplicated` and `merged`.

    A log may write a click as a second row of the same request and job. So a click wins over no click, with the earliest time
    of all clicks (a click's row without one was written when it was made) and the position that the first row with a position
    has. What remains is refused: a row without a click at another position.

    Names `late_impressions`: unknown jobs, requests of two users or queries, and repeated rows that disagree.
    """
    engine.keep(
        "twice",
        """SELECT i.seq, i.request, i.job, i.position, i.clicked, i.clicked_at, c.ts,
            row_number() OVER (PARTITION BY i.request, i.job, i.position, i.clicked, i.clicked_at ORDER BY i.seq) AS nth_equal
        FROM i_impressions i
        JOIN (SELECT request, job FROM i_impressions WHERE NOT conflict GROUP BY request, job HAVING count(*) > 1) d
          ON i.request = d.request AND i.job = d.job
        JOIN c_impressions c ON i.seq = c.seq
        WHERE NOT i.conflict""",
    )
    engine.keep(
        "pairs",
        """SELECT t.request, t.job, min(t.seq) AS seq, count(CASE WHEN t.clicked THEN 1 END) AS clicks,
            min(CASE WHEN t.clicked THEN coalesce(t.clicked_at, t.ts) END) AS clicked_at,
            min(CASE WHEN t.position IS NOT NULL THEN t.seq END) AS placed,
            count(CASE WHEN t.nth_equal = 1 THEN 1 END) AS statements
        FROM twice t GROUP BY t.request, t.job""",
    )
    engine.keep(
        "merged",
        """SELECT p.request, p.job, p.seq, q.position, (p.clicks > 0) AS clicked,
            CASE WHEN p.statements = 1 THEN f.clicked_at ELSE p.clicked_at END AS clicked_at
        FROM pairs p JOIN twice f ON p.seq = f.seq LEFT JOIN twice q ON p.placed = q.seq""",
    )
    engine.keep(
        "again_impressions",
        """SELECT t.seq, CASE WHEN t.nth_equal > 1 THEN 'deduplicated'
            WHEN NOT t.clicked AND t.position <> m.position THEN 'refused' ELSE 'merged' END AS fate
        FROM twice t JOIN merged m ON t.request = m.request AND t.job = m.job WHERE t.seq <> m.seq""",
    )
    engine.sql(
        "late_impressions",
        f"""{UNKNOWN_JOB}
        UNION ALL
        SELECT i.seq, 'request_conflict' AS reason, 'another user or query than the first row of the request' AS detail
            FROM i_impressions i WHERE i.conflict
        UNION ALL
        SELECT a.seq, 'duplicate_id' AS reason, 'another row of the request and job says something else' AS detail
            FROM again_impressions a WHERE a.fate = 'refused'""",
    )
    engine.sql(
        "u_impressions",
        """SELECT i.request, i.job, i.position, i.clicked, i.clicked_at FROM i_impressions i ANTI JOIN twice t ON i.seq = t.seq
            WHERE NOT i.conflict
        UNION ALL SELECT m.request, m.job, m.position, m.clicked, m.clicked_at FROM merged m""",
    )
    found = {row["fate"]: row["n"] for row in engine.rows("SELECT fate, count(*) AS n FROM again_impressions GROUP BY fate")}
    return {fate: int(found.get(fate, 0)) for fate in ("deduplicated", "merged")}
