"""The log of what a server showed, for two rankers in one list and for off-policy estimates; by DuckDB.

Tables are `schema.SHOWN` (`python -m tritower.serving shown`), `schema.SERVED` with a table of clicks, or one's own with the
columns that are named below. A row that comes twice counts once, with its click.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np

from tritower.errors import DataError
from tritower.experiment import click_model, interleaving, off_policy, sources
from tritower.experiment.config import LogConfig
from tritower.experiment.draft import coin

_COINS = 20_000
_OFF = 0.01
"""Share of drafts whose first pick may be another's than the coin says: pages that nobody scrolled lose rows."""
_FAR = 3.29
"""Standard errors: p < .001."""


@contextlib.contextmanager
def opened(shown: Sequence[str], clicks: Sequence[str], config: LogConfig, needed: dict[str, str]) -> Iterator["Log"]:
    """The rows as a table `shown`, each job of a list once.

    Args:
        shown: Parquet or CSV files: `request_id`, `job_id`, a user, and those needed; `clicked` where there are no `clicks`.
        clicks: files of `request_id` and `job_id`; of events (`event`, `clicked`) the clicks count.
        config: names the user's column.
        needed: further columns, and what each says.

    Raises:
        SchemaError: a column is missing.
        DataError: a file cannot be read.
    """
    with sources.opened(config.memory_limit) as connection:
        have = set(sources.view(connection, "given", shown))
        log = Log(connection, have, config)
        log._rows(shown, clicks, needed)
        yield log


@dataclass(frozen=True)
class Drafts:
    """Interleaved lists and who won them.

    Attributes:
        preference: of users.
        lists, users: interleaved lists with a team, and who saw them.
        failed: lists of one ranker, since the other had failed.
        machines: users left out, who clicked on nearly everything.
        first_a: share of lists in which a picked first.
        reasons: why the drafts are not to be believed; empty where they are.
        warnings: what to know besides.
    """

    preference: interleaving.Preference
    lists: int
    users: int
    failed: int
    machines: int
    first_a: float
    reasons: list[str]
    warnings: list[str]


class Log:
    """An open log; `opened` makes one."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, have: set[str], config: LogConfig) -> None:
        self.sql, self.have, self.config = connection, have, config

    def drafts(self) -> Drafts:
        """Whose jobs were clicked.

        Raises:
            DataError: no list has teams, or nobody clicked.
        """
        salt = (
            f" AND interleaving = {sources.text(self.config.salt)}" if self.config.salt and "interleaving" in self.have else ""
        )
        machine = "count(*) >= 50 AND count(*) FILTER (clicked) > $through * count(*)"
        self.sql.execute(
            "CREATE TABLE drafted AS SELECT * FROM shown WHERE request_id IN "
            f"(SELECT request_id FROM shown WHERE team <> ''{salt})"
        )
        self.sql.execute(
            f"CREATE TABLE voter AS SELECT unit, {machine} AS is_machine, count(*) FILTER (clicked AND team = 'a') AS a, "
            "count(*) FILTER (clicked AND team = 'b') AS b FROM drafted GROUP BY unit",
            {"through": self.config.bot_click_through},
        )
        users, machines, a, b, ties = self._one(
            "SELECT count(*), count(*) FILTER (is_machine), count(*) FILTER (a > b AND NOT is_machine), "
            "count(*) FILTER (b > a AND NOT is_machine), count(*) FILTER (a = b AND a > 0 AND NOT is_machine) FROM voter"
        )
        if not users:
            raise DataError(
                "no list has teams a and b", where="column team" if not salt else f"interleaving = {self.config.salt!r}",
                remedy="Serve with `interleave`, and give the log of that time.",
            )  # fmt: skip
        lists, first_a, wrong, thrown = self._coins()
        reasons = []
        if abs(first_a - 0.5) * 2 * lists**0.5 > _FAR:
            reasons.append(f"ranker a picks first in {first_a:.1%} of the lists, which no fair coin does")
        if thrown and wrong > _OFF * thrown:
            reasons.append(f"{wrong:,} of {thrown:,} first picks are not what the coin of their request gives")
        (failed,) = (
            self._one("SELECT count(DISTINCT request_id) FROM shown WHERE failed <> ''") if "failed" in self.have else (0,)
        )
        return Drafts(
            interleaving.of_votes(a, b, ties, self.config.alpha),
            lists,
            users,
            failed,
            machines,
            first_a,
            reasons,
            self._versions(),
        )

    def rows(self, scores: Sequence[str]) -> off_policy.Rows:
        """The shuffled positions, with what a new ranker would have made of them.

        Args:
            scores: files of `request_id`, `job_id`, `score`: the new ranker's, higher is better, for each shuffled job.

        Raises:
            SchemaError: a column is missing.
            DataError: nothing was shuffled, lists lack jobs, or jobs lack scores.
        """
        have = sources.view(self.sql, "scored", scores)
        why = "the new ranker's score of each shuffled job"
        sources.need(sources.said(dict.fromkeys(("request_id", "job_id", "score"), why), have), have, "scores")
        self.sql.execute(
            "CREATE TABLE shuffled AS SELECT *, count(*) OVER list AS jobs, max(position) OVER list AS last, "
            "count(DISTINCT position) OVER (PARTITION BY request_id) AS places "
            "FROM shown WHERE propensity < 1 WINDOW list AS (PARTITION BY request_id)"
        )
        whole = "jobs = round(1 / propensity) AND last = jobs AND places = jobs"
        lists, broken = self._one(
            f"SELECT count(DISTINCT request_id), count(DISTINCT request_id) FILTER (NOT ({whole})) FROM shuffled"
        )
        if not lists:
            raise DataError("no list was shuffled", where="column propensity", remedy="Serve with `shuffle_share` above 0.")
        if broken > 0.01 * lists:
            raise DataError(
                f"{broken:,} of {lists:,} shuffled lists are not whole: jobs are missing that nobody looked at, say",
                where="column position", remedy="Give the log of what was served itself, and the clicks beside it (--clicks).",
            )  # fmt: skip
        found = self.sql.execute(
            f"SELECT dense_rank() OVER (ORDER BY s.request_id) - 1 AS list, dense_rank() OVER (ORDER BY s.unit) - 1 AS who, "
            "s.clicked, s.propensity::DOUBLE AS propensity, s.position - 1 AS position, n.score::DOUBLE AS score, "
            "row_number() OVER (PARTITION BY s.request_id ORDER BY n.score DESC, s.job_id) - 1 AS rank "
            "FROM shuffled s LEFT JOIN (SELECT request_id::VARCHAR AS request_id, job_id::VARCHAR AS job_id, "
            "max(score) AS score FROM scored GROUP BY ALL) n "
            f"ON s.request_id = n.request_id AND s.job_id = n.job_id WHERE {whole}"
        ).fetchnumpy()
        score_N = np.ma.filled(found["score"], np.nan).astype(np.float64)
        if missing := int(np.isnan(score_N).sum()):
            raise DataError(
                f"{missing:,} of {len(score_N):,} shuffled jobs have no score", where="scores, column score",
                remedy="Score every job of every shuffled list.",
            )  # fmt: skip
        number = {name: np.asarray(found[name]).astype(np.int64) for name in ("list", "who", "position", "rank")}
        rows = off_policy.Rows(
            list_N=number["list"], user_N=number["who"], clicked_N=np.asarray(found["clicked"]).astype(bool),
            # float32 in the log: 1 / 3 must not become .33333334
            propensity_N=1 / np.round(1 / np.asarray(found["propensity"])), wanted_N=number["rank"] == number["position"],
        )  # fmt: skip
        return click_model.with_model(rows, position_N=number["position"], rank_N=number["rank"], score_N=score_N)

    def _rows(self, shown: Sequence[str], clicks: Sequence[str], needed: dict[str, str]) -> None:
        where = shown[0] if len(shown) == 1 else f"{shown[0]} and {len(shown) - 1} more"
        unit = self.config.unit if self.config.unit in self.have else "unit"
        reasons = {"request_id": "the search", "job_id": "the job", unit: "who searched", **needed}
        sources.need(sources.said(reasons, self.have), self.have, where)
        if not clicks:
            remedy = "Give the clicks (--clicks), or the table that `python -m tritower.serving shown` writes."
            sources.need({"clicked": remedy}, self.have, where)
        clicked = "coalesce(bool_or(clicked::BOOLEAN), false)" if "clicked" in self.have else "false"
        kept = {"team": "VARCHAR", "interleaving": "VARCHAR", "failed": "VARCHAR", "bundle": "VARCHAR",
                "position": "BIGINT", "propensity": "DOUBLE"}  # fmt: skip
        others = "".join(f", first({one}::{kind}) AS {one}" for one, kind in kept.items() if one in self.have)
        user = f"nullif(first({sources.name(unit)}::VARCHAR), '')"
        self.sql.execute(
            "CREATE TABLE shown AS SELECT request_id::VARCHAR AS request_id, job_id::VARCHAR AS job_id, "
            f"coalesce({user}, 'visit ' || request_id::VARCHAR) AS unit, {clicked} AS clicked{others} FROM given GROUP BY 1, 2"
        )
        if not clicks:
            return
        columns = sources.view(self.sql, "click", clicks)
        sources.need(sources.said(dict.fromkeys(("request_id", "job_id"), "what was clicked"), columns), columns, clicks[0])
        only = "event = 'click'" if "event" in columns else "clicked::BOOLEAN" if "clicked" in columns else "true"
        self.sql.execute(
            "UPDATE shown SET clicked = true FROM (SELECT DISTINCT request_id::VARCHAR AS r, job_id::VARCHAR AS j "
            f"FROM click WHERE {only}) WHERE request_id = r AND job_id = j"
        )

    def _coins(self) -> tuple[int, float, int, int]:
        """Lists with teams, share of them in which a picked first, and of those thrown again: how many differ, how many."""
        place = "position" if "position" in self.have else "0"
        salt = "interleaving" if "interleaving" in self.have else "''"
        self.sql.execute(
            f"CREATE TABLE first_pick AS SELECT request_id, arg_min(team, {place}) AS team, first({salt}) AS salt "
            "FROM drafted WHERE team <> '' GROUP BY request_id"
        )
        lists, of_a = self._one("SELECT count(*), count(*) FILTER (team = 'a') FROM first_pick")
        if "position" not in self.have:
            return lists, 0.5, 0, 0
        some = self.sql.execute(
            f"SELECT request_id, team, salt FROM first_pick WHERE salt <> '' ORDER BY hash(request_id) LIMIT {_COINS}"
        ).fetchall()
        wrong = sum((team == "a") != coin(request_id, salt, 0) for request_id, team, salt in some)
        return lists, of_a / lists, wrong, len(some)

    def _versions(self) -> list[str]:
        if "bundle" not in self.have:
            return []
        query = (
            "SELECT team, count(DISTINCT bundle) FROM drafted WHERE team <> '' GROUP BY team HAVING count(DISTINCT bundle) > 1"
        )
        return [f"ranker {team} was {count} versions: the preference is of their mixture"
                for team, count in sorted(self.sql.execute(query).fetchall())]  # fmt: skip

    def _one(self, query: str) -> tuple[int, ...]:
        return tuple(int(value or 0) for value in self.sql.execute(query).fetchone() or ())
