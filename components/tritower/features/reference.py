"""The features of one row by brute force, to check the fast pass against: every event is looked at for every row.

Written for the reader: a mask says which events lie before the row's time, and each feature is a sum over that mask. Nothing is
shared with the kernels but the tables that do not change in time (`tables`). Too slow for anything but audits and tests.

Legend: N impressions of the log, K keys, P positions, H items, D dimensions.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from rapidfuzz import distance, fuzz

from tritower.features.config import FeaturesConfig
from tritower.features.entities import GROUPS, LABELS, Entities
from tritower.features.tables import NO_DATE, FeatureTables
from tritower.features.timeline import Rows

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
Value = float | None
Bool = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]
SCORERS: dict[str, Callable[[str, str], float]] = {
    "token_set": lambda a, b: fuzz.token_set_ratio(a, b) / 100,
    "token_sort": lambda a, b: fuzz.token_sort_ratio(a, b) / 100,
    "partial": lambda a, b: fuzz.partial_ratio(a, b) / 100,
    "jaro_winkler": distance.JaroWinkler.normalized_similarity,
}


class Reference:
    """Recomputes any row from the whole log."""

    def __init__(self, tables: FeatureTables, log: Rows, config: FeaturesConfig, entities: Entities | None = None) -> None:
        self.tables = tables
        self.log = log
        self.config = config
        self.entities = entities
        jobs, query = tables.jobs, tables.texts.plain_T[log.query].astype(np.int64)
        occupation = jobs.occupation_J[log.job].astype(np.int64)
        pair = np.where((query < 0) | (occupation < 0), -1, query << 32 | occupation)
        company = jobs.company_J[log.job]
        self.keys: dict[str, Array] = {
            "job": log.job, "occupation": occupation, "company": company, "query": query, "query_occupation": pair,
        }  # fmt: skip
        self.hour_of = functools.cache(lambda t: t - t % HOUR_US)
        self.prior = functools.cache(self._prior)
        self.curve = functools.cache(self._curve)

    def row(self, i: int) -> dict[str, Value]:
        """Every feature of row `i` of the log; None = missing."""
        values: dict[str, Value] = {}
        for level in self.keys:
            values.update(self._popularity(level, i))
        values["job_first_shown_days"] = self._first_shown(i)
        values.update(self._strings(i))
        values.update(self._clicks(i))
        values.update(self._searches(i))
        values.update(self._profile(i))
        values.update(self._places(i))
        values.update(self._time(i))
        if self.entities:
            values.update(self._entities(self.entities, i))
        return values

    # ------------------------------------------------------------------------------------------------- popularity

    def shown_before(self, t: int) -> Bool:
        """Impressions strictly before `t`; rows that do not count were never shown."""
        return np.asarray((self.log.ts < t) & self.log.counts)

    def clicked_before(self, t: int) -> Bool:
        """Impressions whose click was strictly before `t`; no click is at `NO_TIME`, after everything."""
        return np.asarray((self.log.clicked_at < t) & self.log.counts)

    def _popularity(self, level: str, i: int) -> dict[str, Value]:
        t, key = int(self.log.ts[i]), self.keys[level][i]
        names = [f"{level}_{what}" for what in ("impressions", "clicks", "ctr", "ctr_decayed", "coec")]
        if key < 0:
            return dict.fromkeys(names)
        shown = self.shown_before(t) & (self.keys[level] == key)
        clicked = self.clicked_before(t) & (self.keys[level] == key)
        n, c = int(shown.sum()), int(clicked.sum())
        if n == 0:
            return dict.fromkeys(names) | {names[0]: 0.0, names[1]: 0.0}
        mean, strength = self.prior(level, self.hour_of(t))
        half_life = self.config.ctr_half_life_days * DAY_US
        n_decayed = float(np.exp2(-(t - self.log.ts[shown]) / half_life).sum())
        c_decayed = float(np.exp2(-(t - self.log.clicked_at[clicked]) / half_life).sum())
        expected = sum(self._expected(int(j)) for j in np.flatnonzero(shown))
        values = (
            np.log1p(n), np.log1p(c), (c + strength * mean) / (n + strength),
            (c_decayed + strength * mean) / (n_decayed + strength), (c + strength * mean) / (expected + strength * mean),
        )  # fmt: skip
        return dict(zip(names, map(float, values), strict=True))

    def _expected(self, j: int) -> float:
        """What an average job would have earned at the position of impression `j`."""
        return float(self.curve(self.hour_of(int(self.log.ts[j])))[min(self.log.position[j], self.config.positions - 1)])

    def _prior(self, level: str, hour: int) -> tuple[float, float]:
        """Mean and strength of the Beta prior from the events before `hour`."""
        default = self.config.prior_impressions
        known = self.keys[level] >= 0
        shown, clicked = self.shown_before(hour) & known, self.clicked_before(hour) & known
        if not shown.any() or not clicked.any():
            return 1 / default, default
        mean = float(clicked.sum() / shown.sum())
        _, n = np.unique(self.keys[level][shown], return_counts=True)
        _, c = np.unique(self.keys[level][clicked], return_counts=True)
        pairs_clicked, pairs_shown = float((c * (c - 1)).sum()), float((n * (n - 1)).sum())
        if pairs_clicked < 20:
            return mean, default
        second = pairs_clicked / pairs_shown
        if second <= mean * mean:
            return mean, 1e4
        return mean, float(np.clip((mean - second) / (second - mean * mean), 1, 1e4))

    def _curve(self, hour: int) -> Array:
        """Expected clicks by position from the events before `hour`."""
        default, positions = self.config.prior_impressions, self.config.positions
        mean = self.prior("job", hour)[0]
        position = np.minimum(self.log.position, positions - 1)
        shown, clicked, random = self.shown_before(hour), self.clicked_before(hour), self.log.randomised
        count = functools.partial(np.bincount, minlength=positions)
        random_shown, random_clicks = count(position[shown & random]), count(position[clicked & random])
        if random_clicks.sum() >= 1000:
            overall = random_clicks.sum() / random_shown.sum()
            curve = (random_clicks + default * overall) / (random_shown + default)
        else:
            curve = (count(position[clicked]) + 10) / (count(position[shown], weights=self._rate(shown)) + 10)
        if not shown.any():
            return np.full(positions, mean)
        scale = mean * shown.sum() / (count(position[shown]) * curve).sum()
        return np.asarray(np.minimum(1, scale * curve))

    def _rate(self, shown: Bool) -> Array:
        """The smoothed click-through rate that the job of each impression had then, cut to a multiple of 2^-30."""
        default, rows = self.config.prior_impressions, np.flatnonzero(shown)
        mean = np.array([self.prior("job", self.hour_of(int(t)))[0] for t in self.log.ts[rows]])
        n, c = self._earlier[0][rows], self._earlier[1][rows]
        return np.asarray(np.floor(2**30 * (c + default * mean) / (n + default)) / 2**30)

    @functools.cached_property
    def _earlier(self) -> tuple[Array, Array]:
        """For every impression the impressions and the clicks of its job that were strictly earlier."""
        n, c = np.zeros(len(self.log), np.int64), np.zeros(len(self.log), np.int64)
        for rows in np.split(np.argsort(self.log.job, kind="stable"), np.cumsum(np.bincount(self.log.job))[:-1]):
            counted = rows[self.log.counts[rows]]
            n[rows] = np.searchsorted(np.sort(self.log.ts[counted]), self.log.ts[rows], side="left")
            c[rows] = np.searchsorted(np.sort(self.log.clicked_at[counted]), self.log.ts[rows], side="left")
        return n, c

    def _first_shown(self, i: int) -> Value:
        t = int(self.log.ts[i])
        before = self.log.ts[self.shown_before(t) & (self.log.job == self.log.job[i])]
        return float((t - before.min()) / DAY_US) if len(before) else None

    # ------------------------------------------------------------------------------------------------ past of a user

    def _clicks(self, i: int) -> dict[str, Value]:
        t, job, jobs = int(self.log.ts[i]), self.log.job[i], self.tables.jobs
        mine = np.flatnonzero(self.clicked_before(t) & (self.log.user == self.log.user[i]))
        mine = mine[np.lexsort((mine, self.log.clicked_at[mine]))]
        past = mine[-self.config.history_clicks :][::-1]
        times, clicked = self.log.clicked_at[past], self.log.job[past]
        values = self._cosines("history", i, jobs.document_J[clicked], times)
        for name, trait_J in (
            ("company", jobs.company_J),
            ("city", jobs.place_3J[0]),
            ("occupation", jobs.occupation_J),
            ("job", np.arange(len(jobs))),
        ):
            known = len(past) and trait_J[job] >= 0
            values[f"history_same_{name}"] = float((trait_J[clicked] == trait_J[job]).mean()) if known else None
        values["history_clicks"] = float(np.log1p(len(mine)))
        values["history_days_since_click"] = float((t - times[0]) / DAY_US) if len(past) else None
        return values

    def _searches(self, i: int) -> dict[str, Value]:
        t, plain_T = int(self.log.ts[i]), self.tables.texts.plain_T
        mine = self.shown_before(t) & (self.log.user == self.log.user[i]) & (plain_T[self.log.query] >= 0)
        _, first = np.unique(self.log.request[mine], return_index=True)
        rows = np.sort(np.flatnonzero(mine)[first])
        past = rows[-self.config.history_searches :][::-1]
        values = self._cosines("searches", i, self.log.query[past], self.log.ts[past])
        known = len(past) and plain_T[self.log.query[i]] >= 0
        same = plain_T[self.log.query[past]] == plain_T[self.log.query[i]]
        values["searches_same_query"] = float(same.mean()) if known else None
        values["searches"] = float(np.log1p(len(rows)))
        values["searches_days_since"] = float((t - self.log.ts[past[0]]) / DAY_US) if len(past) else None
        return values

    def _cosines(self, name: str, i: int, texts: Array, times: Array) -> dict[str, Value]:
        """Cosines of the document of row `i` with vectors, newest first."""
        names = [f"{name}_cos_{what}" for what in ("centroid", "max", "last")]
        if not len(texts):
            return dict.fromkeys(names)
        candidate_D = self._vectors(self.tables.jobs.document_J[self.log.job[i : i + 1]])[0]
        past_HD = self._vectors(texts)
        weight_H = np.exp2((times - times[0]) / (self.config.history_half_life_days * DAY_US))
        centroid_D = weight_H @ past_HD
        length = np.linalg.norm(centroid_D)
        product_H = past_HD @ candidate_D
        values = (centroid_D @ candidate_D / length if length else 0.0, product_H.max(), product_H[0])
        return {name: float(np.clip(value, -1, 1)) for name, value in zip(names, values, strict=True)}

    def _vectors(self, texts: Array) -> Array:
        return self.tables.matrix_TD[texts].view(np.float16).astype(np.float64)

    # ------------------------------------------------------------------------------------------- texts, places, time

    def _strings(self, i: int) -> dict[str, Value]:
        query, job = self._plain(self.log.query[i]), self.log.job[i]
        title = self._plain(self.tables.jobs.title_J[job])
        company = (
            str(self.tables.jobs.companies[self.tables.jobs.company_J[job]]) if self.tables.jobs.company_J[job] >= 0 else ""
        )
        values: dict[str, Value] = {}
        for target, text, scorers in (
            ("title", title, ("token_set", "token_sort", "partial", "jaro_winkler")),
            ("company", company, ("token_set", "partial", "jaro_winkler")),
        ):
            for name in scorers:
                values[f"{target}_{name}"] = float(SCORERS[name](query, text)) if query and text else None
        document = self.tables.jobs.document_J[job : job + 1]
        cosine = float((self._vectors(self.log.query[i : i + 1]) @ self._vectors(document).T)[0, 0])
        known = query and self._plain(int(document[0]))
        return values | {"query_document_cos": float(np.clip(cosine, -1, 1)) if known else None}

    def _plain(self, text: int) -> str:
        number = int(self.tables.texts.plain_T[text])
        return str(self.tables.texts.plain[number]) if number >= 0 else ""

    def _profile(self, i: int) -> dict[str, Value]:
        title, user = int(self.tables.jobs.title_J[self.log.job[i]]), int(self.log.user[i])
        values: dict[str, Value] = {}
        for side, lists in (("wanted", self.tables.wanted), ("past", self.tables.past)):
            texts = lists.text_E[lists.offset_U[user] : lists.offset_U[user + 1]]
            known = len(texts) and self._plain(title)
            cosines = self._vectors(texts) @ self._vectors(np.array([title]))[0] if known else []
            ratios = [SCORERS["token_set"](self._plain(int(text)), self._plain(title)) for text in texts] if known else []
            values[f"{side}_cos_max"] = float(np.clip(max(cosines), -1, 1)) if known else None
            values[f"{side}_token_set_max"] = float(max(ratios)) if known else None
        return values

    def _places(self, i: int) -> dict[str, Value]:
        tables, job = self.tables, self.log.job[i]
        there = tables.jobs.place_3J[:, job]
        place_31, remote_1 = tables.searches.of(self.log.request[i : i + 1])
        values: dict[str, Value] = {}
        for side, here in (("query", place_31[:, 0]), ("home", tables.home_3U[:, self.log.user[i]])):
            differs = (here >= 0) & (there >= 0) & (here != there)
            for k, level in enumerate(("city", "region", "country")):
                known = here[k] >= 0 and there[k] >= 0
                values[f"{side}_{level}_match"] = float(not differs[k:].any()) if known else None
        values["job_remote"] = float(tables.jobs.remote_J[job])
        values["query_remote"] = float(remote_1[0])
        return values

    def _time(self, i: int) -> dict[str, Value]:
        t, posted = int(self.log.ts[i]), int(self.tables.jobs.posted_J[self.log.job[i]])
        age = (t - posted) / DAY_US if posted != NO_DATE and posted <= t else None
        monday = 4 * DAY_US  # 1970-01-05
        return {"job_age_days": age, "hour_of_week": float((t - monday) // HOUR_US % 168)}

    def _entities(self, found: Entities, i: int) -> dict[str, Value]:
        query, job, table = int(self.log.query[i]), self.log.job[i], found.table
        title = int(self.tables.jobs.title_J[job])
        of_job = {"COMPANY": {int(table.company_J[job])} - {-1}, "PLACE": set(table.place_3J[:, job].tolist()) - {-1}}
        values: dict[str, Value] = {}
        for k, label in enumerate(LABELS):
            asked, offered = _values(found, query, k), of_job.get(label, _values(found, title, k))
            known = bool(asked and offered)
            values[f"entity_{label.lower()}_overlap"] = len(asked & offered) / len(asked) if known else None
            if label in ("TITLE", "SKILL"):
                values[f"entity_{label.lower()}_exact"] = float(asked == offered) if known else None
        words = {number: word for word, number in found.number.items()}
        asked_words, offered_words = ({p for v in _values(found, text, 0) for p in words[v].split()} for text in (query, title))
        either = asked_words | offered_words
        values["entity_title_words"] = len(asked_words & offered_words) / len(either) if asked_words and offered_words else None
        past = self.tables.past
        mine = past.text_E[past.offset_U[self.log.user[i]] : past.offset_U[self.log.user[i] + 1]]
        levels = {"query": int(table.level_T[query]), "user": max((int(table.level_T[text]) for text in mine), default=-1)}
        for side, level in levels.items():
            known = level >= 0 and table.level_T[title] >= 0
            values[f"seniority_{side}_distance"] = float(table.level_T[title] - level) if known else None
        return values


def _values(found: Entities, text: int, label: int) -> set[int]:
    group = text * GROUPS + label
    return set(found.table.value_E[found.table.offset[group] : found.table.offset[group + 1]].tolist())
