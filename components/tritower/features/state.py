"""The counters and histories as files, so that the next run continues where this one ended.

Numbers of a dataset mean nothing in the next one, so everything is stored under its own name: jobs and users by id, companies,
occupations and queries by their plain text. A run that continues puts the names that its dataset lacks behind its own tables
(`extend`): a job that is no longer advertised still counts for the user who clicked it, and is handed on to the day after.
The vectors of the texts that histories refer to are kept beside them.

features/state/state.json            version, knobs, time of the last row, clocks, the requests of the last instant
features/state/sums.npz              sums of the priors and the examination curve, their values for the hour begun
features/state/counters-<level>.parquet   name, other (the occupation of a pair), n, c, n decayed, c decayed, expected, first ts
features/state/clicks.parquet, searches.parquet   user_id, count, items and times, newest first
features/state/queue.parquet         impressions of the last instant, and clicks not yet past
features/state/jobs.parquet, texts.parquet, vectors.npy   what histories and queue refer to
features/state/counted.parquet       which searches were counted (counted.py)

Legend: K keys, S slots, H items, X extra texts, D dimensions.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower import __version__, storage
from tritower.config import to_dict
from tritower.errors import ArtifactError
from tritower.features import counters, rings
from tritower.features.config import FeaturesConfig
from tritower.features.counted import Counted
from tritower.features.feature_state import FeatureState
from tritower.features.places import LEVELS as PLACE_LEVELS
from tritower.features.strings import normalise
from tritower.features.tables import FeatureTables, Jobs, Texts
from tritower.features.timeline import Rows
from tritower.storage import manifest

VERSION = 2
VALUES = ("shown", "clicks", "shown_decayed", "clicks_decayed", "expected", "first_ts")
MEANING = (
    "ctr_half_life_days",
    "history_half_life_days",
    "history_clicks",
    "history_searches",
    "prior_impressions",
    "positions",
)
Array = npt.NDArray[Any]


def knobs(config: FeaturesConfig) -> dict[str, Any]:
    """The knobs that change values; a state continues under the same ones only."""
    return {name: value for name, value in to_dict(config).items() if name in MEANING}


def save(folder: Path, feature_state: FeatureState, config: FeaturesConfig, counted: Counted) -> None:
    """Write what `feature_state` holds after its last row, run with the knobs `config`, into `folder`, which is empty."""
    tables, state, line = feature_state.tables, feature_state.counters.state, feature_state.timeline
    queue = Rows.concat([line.impressions, line.clicks])
    about = {
        "version": VERSION, "config": knobs(config), "last_ts": int(line.last_ts), "clock": int(state.clock_1[0]),
        "hour": int(state.hour_1[0]),
        "last_requests": tables.request_ids(np.unique(line.impressions.request)), "encoder": tables.encoder,
    }  # fmt: skip
    storage.write_json(folder / "state.json", about)
    np.savez(
        folder / "sums.npz", moments=state.moments_L4, tally=state.tally_P5, prior=state.prior_L2, curve=state.curve_P,
        expected=feature_state.counters.expected_Q, rate=feature_state.counters.rate_Q,
    )  # fmt: skip
    for level in range(len(counters.LEVELS)):
        pq.write_table(_keys(feature_state, level), folder / f"counters-{counters.LEVELS[level]}.parquet", compression="zstd")
    clicked = _save_rings(folder / "clicks.parquet", feature_state.history.rings, tables.user_ids, tables.jobs.ids)
    searched = _save_rings(folder / "searches.parquet", feature_state.searches.rings, tables.user_ids, tables.texts.values)
    jobs = np.unique(np.concatenate([clicked, queue.job]))
    texts = np.unique(np.concatenate([searched, queue.query, tables.jobs.document_J[jobs]]))
    pq.write_table(_queue_table(queue, len(line.impressions), tables), folder / "queue.parquet", compression="zstd")
    pq.write_table(_job_table(tables, jobs), folder / "jobs.parquet", compression="zstd")
    pq.write_table(pa.table({"text": tables.texts.values.take(pa.array(texts))}), folder / "texts.parquet", compression="zstd")
    _save_vectors(folder / "vectors.npy", tables, texts)
    counted.write(folder)


def _save_vectors(path: Path, tables: FeatureTables, texts: Array) -> None:
    """Write the vectors of some texts, a few at a time."""
    dim = tables.matrix_TD.shape[1]
    with path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(texts), dim)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(texts), 8_192):
            file.write(tables.vectors(texts[start : start + 8_192]).tobytes())


def _keys(feature_state: FeatureState, level: int) -> pa.Table:
    """The counted keys of a level, by name."""
    tables, table_KW = feature_state.tables, feature_state.counters.state.table_KW
    start = int(feature_state.base_L[level])
    if counters.LEVELS[level] == "query_occupation":
        left, right = feature_state.pairs.pairs()
        block = table_KW[start : start + len(left)]
        used = np.flatnonzero((block[:, counters.SHOWN] > 0) | (block[:, counters.CLICKS] > 0))
        name, other = tables.texts.plain.take(pa.array(left[used])), tables.jobs.occupations.take(pa.array(right[used]))
    else:
        known = (tables.jobs.ids, tables.jobs.occupations, tables.jobs.companies, tables.texts.plain)[level]
        block = table_KW[start : start + len(known)]
        used = np.flatnonzero((block[:, counters.SHOWN] > 0) | (block[:, counters.CLICKS] > 0))
        name, other = known.take(pa.array(used)), pa.nulls(len(used), pa.string())
    columns = {what: block[used, w] for w, what in enumerate(VALUES)}
    return pa.table({"name": name, "other": other, **columns})


def _save_rings(path: Path, past: rings.Rings, user_ids: pa.Array, items: pa.Array) -> Array:
    """Write a table of rings; return the distinct items in them."""
    users = np.flatnonzero(past.slot_U >= 0)
    slots = past.slot_U[users]
    count, size = past.count_S[slots], past.item_SH.shape[1]
    held = np.minimum(count, size)
    row = np.repeat(np.arange(len(users)), held)
    h = np.arange(len(row)) - np.repeat(np.cumsum(held) - held, held)
    at = (count[row] - 1 - h) % size
    item = past.item_SH[slots[row], at]
    offsets = pa.array(np.concatenate([[0], np.cumsum(held)]).astype(np.int32))
    columns = {
        "user_id": user_ids.take(pa.array(users)), "count": count,
        "items": pa.ListArray.from_arrays(offsets, items.take(pa.array(item))),
        "ts": pa.ListArray.from_arrays(offsets, pa.array(past.ts_SH[slots[row], at])),
    }  # fmt: skip
    pq.write_table(pa.table(columns), path, compression="zstd")
    return np.unique(item)


def _queue_table(queue: Rows, impressions: int, tables: FeatureTables) -> pa.Table:
    request, where = np.unique(queue.request, return_inverse=True)
    return pa.table({
        "impression": np.arange(len(queue)) < impressions,
        "request_id": pa.array(tables.request_ids(request), pa.string()).take(pa.array(where)),
        "ts": queue.ts,
        "user_id": tables.user_ids.take(pa.array(queue.user)),
        "job_id": tables.jobs.ids.take(pa.array(queue.job)),
        "query": tables.texts.values.take(pa.array(queue.query)),
        "position": queue.position,
        "randomised": queue.randomised,
        "clicked_at": queue.clicked_at,
    })  # fmt: skip


def _job_table(tables: FeatureTables, jobs: Array) -> pa.Table:
    own = tables.jobs
    places = {
        level: _take_or_null(pa.array(list(tables.places.number[level]), pa.string()), own.place_3J[i, jobs])
        for i, level in enumerate(PLACE_LEVELS)
    }
    return pa.table({
        "job_id": own.ids.take(pa.array(jobs)),
        "document": tables.texts.values.take(pa.array(own.document_J[jobs])),
        "company": _take_or_null(own.companies, own.company_J[jobs]),
        "occupation": _take_or_null(own.occupations, own.occupation_J[jobs]),
        **places,
    })  # fmt: skip


def _take_or_null(names: pa.Array, number: Array) -> pa.Array:
    return names.take(pa.array(np.maximum(number, 0), mask=number < 0))


@contextlib.contextmanager
def fetched(state: str | Path) -> Iterator[Path]:
    """The folder of a saved state, or of the run that left it, on this machine."""
    with tempfile.TemporaryDirectory() as scratch:
        is_here = storage.is_local(state)
        folder = storage.local_path(state) if is_here else storage.fetch_tree(state, Path(scratch) / "state")
        folder = folder if (folder / "state.json").exists() else folder / "state"
        manifest.check(folder)
        yield folder


class Saved:
    """A state folder, read."""

    def __init__(self, folder: str | Path, config: FeaturesConfig) -> None:
        """Read it.

        Raises:
            ArtifactError: it was written by another version or with other knobs.
        """
        self.folder = Path(folder)
        self.about = storage.read_json(self.folder / "state.json")
        _check(self.about, knobs(config), str(folder))
        self.last_ts: int = self.about["last_ts"]
        self.searches_counted = Counted.read(self.folder)
        self.jobs = self._table("jobs")
        self.queue = self._table("queue")
        self.clicks, self.searches = self._table("clicks"), self._table("searches")
        self.levels = [self._table(f"counters-{level}") for level in counters.LEVELS]
        self.texts = self._table("texts").column("text").combine_chunks()
        self.vectors: npt.NDArray[np.uint16] = np.load(self.folder / "vectors.npy").view(np.uint16)

    def _table(self, name: str) -> pa.Table:
        return pq.read_table(self.folder / f"{name}.parquet").combine_chunks()

    def counted(self, request_ids: pa.Array) -> npt.NDArray[np.bool_]:
        """Which of the requests at the state's last instant it has counted."""
        return _in(request_ids, pa.array(self.about["last_requests"], pa.string()))


def _check(about: dict[str, Any], own: dict[str, Any], where: str) -> None:
    """Raise ArtifactError where a state is of another version than this code, or of other knobs; name what differs."""
    if about.get("version") != VERSION:
        raise ArtifactError(
            f"the state has version {about.get('version')}, tritower {__version__} reads version {VERSION}",
            where=where,
            remedy="Run the version of tritower that wrote it, or build from the start without a state.",
        )
    theirs = about["config"]
    differ = [name for name in sorted(own | theirs) if own.get(name) != theirs.get(name)]
    if differ:
        then, now = (", ".join(f"{name}={values.get(name)}" for name in differ) for values in (theirs, own))
        raise ArtifactError(
            f"the state was written with {then}, this run has {now}",
            where=where,
            remedy="Use the same knobs, or build from the start without a state.",
        )


def restore(feature_state: FeatureState, saved: Saved) -> None:
    """Put a saved state into a fresh feature_state whose tables were extended by it."""
    own, sums = feature_state.counters, np.load(saved.folder / "sums.npz", allow_pickle=False)
    line, tables = feature_state.timeline, feature_state.tables
    for level, table in enumerate(saved.levels):
        _restore_level(feature_state, level, table)
    state = own.state
    for target, name in (
        (state.moments_L4, "moments"),
        (state.tally_P5, "tally"),
        (state.prior_L2, "prior"),
        (state.curve_P, "curve"),
    ):
        target[:] = sums[name]
    state.clock_1[0], state.hour_1[0] = saved.about["clock"], saved.about["hour"]
    own.expected_Q, own.rate_Q = sums["expected"], sums["rate"]
    feature_state.history.rings = _restore_rings(feature_state.history.rings, saved.clicks, tables.user_ids, tables.jobs.ids)
    feature_state.searches.rings = _restore_rings(
        feature_state.searches.rings, saved.searches, tables.user_ids, tables.texts.values
    )
    queue = saved.queue
    request = _find(queue.column("request_id"), pa.array(tables.past_requests, pa.string()))
    count = queue.num_rows
    rows = Rows(
        row=np.full(count, -1),
        request=-1 - request.astype(np.int64),  # of the past: equal to no request of the dataset
        ts=queue.column("ts").to_numpy(),
        user=_find(queue.column("user_id"), tables.user_ids),
        job=_find(queue.column("job_id"), tables.jobs.ids),
        query=_find(queue.column("query"), tables.texts.values),
        position=queue.column("position").to_numpy().astype(np.int32),
        randomised=queue.column("randomised").to_numpy(),
        clicked_at=queue.column("clicked_at").to_numpy(),
        counts=np.ones(count, np.bool_),
        out=np.full(count, -1),
    )
    impression = np.asarray(queue.column("impression").to_numpy(), np.bool_)
    line.impressions, line.clicks, line.last_ts = rows.take(impression), rows.take(~impression), saved.last_ts


def _restore_level(feature_state: FeatureState, level: int, table: pa.Table) -> None:
    tables, start = feature_state.tables, int(feature_state.base_L[level])
    if counters.LEVELS[level] == "query_occupation":
        left = _find(table.column("name"), tables.texts.plain)
        number = feature_state.pairs.numbers(left, _find(table.column("other"), tables.jobs.occupations))
        feature_state.counters.reserve(start + feature_state.pairs.used)
    else:
        known = (tables.jobs.ids, tables.jobs.occupations, tables.jobs.companies, tables.texts.plain)[level]
        number = _find(table.column("name"), known).astype(np.int64)
    for w, what in enumerate(VALUES):
        feature_state.counters.state.table_KW[start + number, w] = table.column(what).to_numpy()


def _restore_rings(past: rings.Rings, table: pa.Table, user_ids: pa.Array, items: pa.Array) -> rings.Rings:
    past = rings.reserve(past, table.num_rows)
    size = past.item_SH.shape[1]
    slots, count = np.arange(table.num_rows), table.column("count").to_numpy()
    past.slot_U[_find(table.column("user_id"), user_ids)] = slots
    past.count_S[slots] = count
    held = np.minimum(count, size)
    row = np.repeat(slots, held)
    at = (count[row] - 1 - (np.arange(len(row)) - np.repeat(np.cumsum(held) - held, held))) % size
    past.item_SH[row, at] = _find(pc.list_flatten(table.column("items")), items)
    past.ts_SH[row, at] = pc.list_flatten(table.column("ts")).to_numpy()
    past.used_1[0] = len(slots)
    return past


def _find(words: Any, known: pa.Array) -> npt.NDArray[np.int32]:
    return np.asarray(pc.index_in(words, value_set=known).to_numpy(), np.int32)


def extend(tables: FeatureTables, saved: Saved) -> FeatureTables:
    """The tables of a dataset with the names that only the state knows put behind.

    Raises:
        ArtifactError: the state's vectors are needed and come from another encoder.
    """
    new_texts = _fresh(saved.texts, tables.texts.values)
    if len(new_texts) and tables.encoder != saved.about["encoder"]:
        raise ArtifactError(
            f"histories refer to {len(new_texts)} texts that the dataset lacks, and their vectors are of another encoder",
            where=str(saved.folder),
            remedy="Embed with the encoder the state was built with, or give a dataset that reaches back.",
        )
    tables = replace(tables, texts=_more_texts(tables.texts, saved, new_texts), extra_XD=saved.vectors[new_texts])
    user_ids = _union(tables.user_ids, *(table.column("user_id") for table in (saved.clicks, saved.searches, saved.queue)))
    users = len(user_ids) - len(tables.user_ids)
    return replace(
        tables,
        jobs=_more_jobs(tables, saved),
        user_ids=user_ids,
        home_3U=np.stack([_pad(old, [], users) for old in tables.home_3U]),
        wanted=tables.wanted.padded(users),
        past=tables.past.padded(users),
        past_requests=saved.queue.column("request_id").unique().to_pylist(),
    )


def _more_texts(texts: Texts, saved: Saved, new_texts: Array) -> Texts:
    fresh = saved.texts.take(pa.array(new_texts))
    plain_fresh = normalise(fresh)
    worded = plain_fresh.filter(pc.not_equal(plain_fresh, ""))
    plain = _union(texts.plain, worded, saved.levels[3].column("name"), saved.levels[4].column("name"))
    return Texts(
        values=pa.concat_arrays([texts.values, fresh]),
        plain=plain,
        plain_T=_pad(texts.plain_T, _find_or(plain_fresh, plain), len(fresh)),
        remote_T=_pad(texts.remote_T, [], len(fresh)),
    )


def _more_jobs(tables: FeatureTables, saved: Saved) -> Jobs:
    jobs = tables.jobs
    ids = _union(jobs.ids, saved.jobs.column("job_id"), saved.levels[0].column("name"))
    companies = _union(jobs.companies, saved.jobs.column("company"), saved.levels[2].column("name"))
    named = (saved.jobs.column("occupation"), saved.levels[1].column("name"), saved.levels[4].column("other"))
    occupations = _union(jobs.occupations, *named)
    # Those that histories refer to come first among the new ids; of the others only the counters are known, and needed.
    unknown = saved.jobs.take(pa.array(_fresh(saved.jobs.column("job_id"), jobs.ids)))
    more = len(ids) - len(jobs)
    place_3X = tables.places.encode(unknown)
    return Jobs(
        ids=ids,
        companies=companies,
        occupations=occupations,
        title_J=_pad(jobs.title_J, [], more),
        description_J=_pad(jobs.description_J, [], more),
        document_J=_pad(jobs.document_J, _find(unknown.column("document"), tables.texts.values), more),
        company_J=_pad(jobs.company_J, _find_or(unknown.column("company"), companies), more),
        occupation_J=_pad(jobs.occupation_J, _find_or(unknown.column("occupation"), occupations), more),
        place_3J=np.stack([_pad(old, new, more) for old, new in zip(jobs.place_3J, place_3X, strict=True)]),
        posted_J=_pad(jobs.posted_J, [], more),
        remote_J=_pad(jobs.remote_J, [], more),
    )


def _union(known: pa.Array, *others: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The names of `known` in order, then the new ones of `others`."""
    for other in others:
        words = (other.combine_chunks() if isinstance(other, pa.ChunkedArray) else other).drop_null().unique()
        known = pa.concat_arrays([known, words.take(pa.array(_fresh(words, known)))])
    return known


def _fresh(words: Any, known: pa.Array) -> Array:
    """Where the words are that `known` lacks."""
    return np.flatnonzero(~_in(words, known))


def _in(words: Any, known: pa.Array) -> npt.NDArray[np.bool_]:
    found = pc.is_in(words.combine_chunks() if isinstance(words, pa.ChunkedArray) else words, value_set=known)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)


def _find_or(words: Any, known: pa.Array) -> Array:
    return np.asarray(pc.fill_null(pc.index_in(words, value_set=known, skip_nulls=True), -1).to_numpy(), np.int32)


def _pad(old: Array, new: Any, more: int) -> Array:
    """`old`, then `new`, then -1 (false) up to `more` entries."""
    out = np.full(len(old) + more, -1 if old.dtype != np.bool_ else 0, old.dtype)
    out[: len(old)] = old
    out[len(old) : len(old) + len(new)] = new
    return out
