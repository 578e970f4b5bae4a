"""The features of one request while it waits: the state of the step, kept up to date event by event.

`read` answers as the step would have answered for the same rows, to the bit, and changes nothing; `observe` counts what has
happened since; `update` takes in new jobs and changed ones. A lock is held while a read copies its part of the state
(`excerpt.py`) and while events are counted, not while features are computed, so that several threads may read at once.

Legend: N jobs asked for, E events, X texts, D dimensions.
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tritower import schema, storage
from tritower.config import from_dict
from tritower.errors import ConfigError, DataError, SchemaError
from tritower.features import entities as found_entities
from tritower.features import guest as guests
from tritower.features import resident
from tritower.features import state as saved_state
from tritower.features.config import FeaturesConfig
from tritower.features.excerpt import Excerpt, Query
from tritower.features.feature_state import FeatureState
from tritower.features.guest import Described, Guest
from tritower.features.live import LiveTables, clean
from tritower.features.past import Past, busiest, of_user
from tritower.features.places import speaks_of_remote
from tritower.features.strings import UNNUMBERED, normalised
from tritower.features.tables import FeatureTables
from tritower.features.timeline import NO_TIME, Rows

Embed = Callable[[Sequence[str]], npt.NDArray[np.floating]]
"""Texts in, their unit vectors (X, D) out: what the encoder's `matrix.npy` would hold for them."""
Recognise = Callable[[Sequence[str]], pa.Table]
"""Texts in, their entities out as `schema.ENTITIES`; `text` is the position in the argument."""
EVENTS = schema.Table(
    name="events",
    doc="What has happened: rows of the raw impressions, and clicks on impressions that were observed before.",
    key=("request_id", "job_id", "event"),
    columns=(
        *schema.RAW_IMPRESSIONS.columns,
        schema.Column(name="event", type="string", doc="`impression`, also where missing, or `click`."),
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A search that waits for its features.

    Attributes:
        ts: its time in microseconds since 1970, UTC.
        user_id: who searches.
        query: what was typed; may be empty.
        city, region, country: where; None = unknown.
        guest: who searches, described here; takes the place of what is known of `user_id`.
    """

    ts: int
    user_id: str
    query: str
    city: str | None = None
    region: str | None = None
    country: str | None = None
    guest: Guest | None = None


class OnlineFeatures:
    """Features of requests, and the state behind them. Any number of threads may read, observe and update."""

    def __init__(
        self, state: FeatureState, live: LiveTables, past_requests: Sequence[str], embed: Embed, recognise: Recognise | None
    ) -> None:
        """For `open`."""
        self._state, self._live, self._embed, self._recognise = state, live, embed, recognise
        self._lock = threading.Lock()
        # Rows of one search may come in two parts at its instant: the numbers of those are kept.
        self._recent = {request_id: -1 - i for i, request_id in enumerate(past_requests)}
        self._requests = 0

    @staticmethod
    def open(
        state: str | Path,
        catalogue: str | Path,
        embeddings: str | Path,
        entities: str | Path | None = None,
        *,
        embed: Embed,
        recognise: Recognise | None = None,
        kept: str | Path | None = None,
    ) -> "OnlineFeatures":
        """Continue from a state.

        Args:
            state: location of the state that a run of the step left, or of that run's features.
            catalogue: folder written by ingest, with the jobs, users and texts of the day; impressions are not read.
            embeddings: written by the encoder for it.
            entities: written by the entities step for it; without it there are no entity features.
            embed: for texts that the catalogue lacks.
            recognise: the same; needed with `entities`.
            kept: what `keep` wrote of the same state, catalogue, embeddings and entities; it is mapped instead of made anew.

        Raises:
            ArtifactError: the state is of another version, or the embeddings of another dataset.
            ConfigError: there are entities and no `recognise`.
        """
        if entities and not recognise:
            raise ConfigError("entities are given without `recognise`", where=str(entities), remedy="Give both, or neither.")
        catalogue = Path(catalogue)
        if kept:
            whole, live = resident.read(Path(kept), catalogue, Path(embeddings))
            return OnlineFeatures(whole, live, live.tables.past_requests, embed, recognise)
        with saved_state.fetched(state) as folder:
            config = from_dict(FeaturesConfig, storage.read_json(folder / "state.json")["config"])
            seen = saved_state.Saved(folder, config)
            tables = saved_state.extend(FeatureTables.read(catalogue, Path(embeddings)), seen)
            counts = len(tables.texts), len(tables.jobs)
            live = LiveTables.of(tables, found_entities.Entities.read(entities, catalogue, *counts) if entities else None)
            whole = FeatureState(live.tables, config, live.found, live.sizes)
            saved_state.restore(whole, seen)
        return OnlineFeatures(whole, live, tables.past_requests, embed, recognise)

    def keep(self, folder: Path) -> None:
        """Write what `open` maps as `kept`; of features that nobody has told anything yet."""
        self._live.make_room(resident.ROOM_SHARE)
        self._state.grow(self._live.tables, self._live.sizes)
        resident.write(folder, self._state, self._live)

    @property
    def names(self) -> list[str]:
        """The features in the order of the step's columns."""
        return self._state.layout.names

    @property
    def last_ts(self) -> int | None:
        """Time of the last impression counted, in microseconds since 1970; None where none was."""
        last = int(self._state.timeline.last_ts)
        return last if last != np.iinfo(np.int64).min else None

    def vector(self, text: str) -> npt.NDArray[np.float16]:
        """The unit vector (D,) of a text as the features see it: the embeddings' where they have it, else by `embed`."""
        text = clean(text)
        with self._lock:
            number = self._live.text(text)
            bits_D = self._live.tables.vectors(np.array([number]))[0] if number >= 0 else None
        vector_D: npt.NDArray[np.float16] = (self._embedded([text])[0] if bits_D is None else bits_D).view(np.float16)
        return vector_D

    def numbers(self, job_ids: Sequence[str] | pa.Array) -> npt.NDArray[np.int64]:
        """What `read` takes in place of ids, -1 for a job never met; a job that has a number keeps it."""
        with self._lock:
            return self._live.jobs.find_all(job_ids)

    def read(self, request: Request, job_ids: Sequence[str] | npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float32]]:
        """The features of jobs for a request: of each feature N values, NaN = missing.

        Counted is what was observed with an earlier time, as in the step; a request that is older than the last impression
        observed is answered as of that. Whoever was never observed has no past; a job that the catalogue lacks has no title, no
        company and no place.

        Args:
            request: the search.
            job_ids: N jobs, or their `numbers`, which spares 1,000 look-ups a search.
        """
        text = clean(request.query)
        described = self._describe([text]) if text and self._live.text(text) < 0 else None
        told = guests.describe(request.guest, self._live, self._describe) if request.guest else None
        with self._lock:
            query = self._query(request, text, described)
            if request.guest and told:
                query = self._with_guest(query, request.guest, told)
            job_N = job_ids if isinstance(job_ids, np.ndarray) else self._live.jobs.find_all(job_ids)
            excerpt = Excerpt(self._state, self._live, query, job_N)
        return excerpt.columns()

    def past(self, user_id: str) -> Past:
        """What the features know of a user, in names; of somebody never met, nothing."""
        with self._lock:
            return of_user(self._state, self._live, self._live.users.find(user_id))

    def busiest(self, most: int) -> list[str]:
        """The users with the most clicks counted; at most `most`."""
        with self._lock:
            return busiest(self._state, self._live.users, most)

    def observe(self, events: pa.Table) -> None:
        """Count what has happened.

        The rows of one search come in one call, each event once, in any order. An impression that is older than the last one
        observed, or a click, comes late: it counts from now on, as if it had happened at that one's time.

        Args:
            events: rows of `EVENTS`; an impression may bring its click with it, also one of the future.

        Raises:
            SchemaError: a column is missing or of another type.
        """
        events = conform_events(events)
        queries = [clean(text) for text in events.column("query").to_pylist()]
        fresh = [text for text in dict.fromkeys(queries) if text and self._live.text(text) < 0]
        described = self._describe(fresh)
        with self._lock:
            self._add_texts(fresh, *described)
            live, line = self._live, self._state.timeline
            rows = _rows(events, queries, live, self._number_requests(events.column("request_id").to_pylist()))
            self._fit()
            is_click = np.asarray(pc.equal(events.column("event"), "click").fill_null(False).to_numpy(), np.bool_)
            line.add_clicks(rows.take(is_click & (rows.clicked_at != NO_TIME)))
            shown = rows.take(~is_click)
            late = dataclasses.replace(
                shown, ts=np.maximum(shown.ts, line.last_ts), clicked_at=np.maximum(shown.clicked_at, line.last_ts)
            )
            self._state.count(late.take(np.argsort(late.ts, kind="stable")))
            held = set(line.impressions.request.tolist())
            self._recent = {request_id: number for request_id, number in self._recent.items() if number in held}

    def update(self, jobs: pa.Table) -> None:
        """Take in new jobs and changed ones. One that has expired needs no word: users' histories still refer to it.

        Args:
            jobs: rows of `schema.RAW_JOBS`.

        Raises:
            SchemaError: a column is missing or of another type.
        """
        jobs = conform_jobs(jobs)
        titles, companies = ([clean(text) for text in jobs.column(name).to_pylist()] for name in ("title", "company"))
        documents = [schema.document_text(*pair) for pair in zip(titles, companies, strict=True)]
        fresh = [text for text in dict.fromkeys([*titles, *documents]) if text and self._live.text(text) < 0]
        described = self._describe(fresh)
        with self._lock:
            self._add_texts(fresh, *described)
            self._live.put_jobs(jobs)
            self._fit()

    def _query(self, request: Request, text: str, described: tuple[npt.NDArray[np.uint16], pa.Table | None] | None) -> Query:
        """The request in numbers; `described` where its text had none."""
        live, number = self._live, self._live.text(text)
        place_3, names_remote = live.tables.places.of_search(request.city, request.region, request.country)
        if described is None:
            plain_number, asks_remote = int(live.tables.texts.plain_T[number]), bool(live.tables.texts.remote_T[number])
            plain = live.plain[plain_number] if plain_number >= 0 else ""
        else:
            plain = normalised(text)
            asks_remote = speaks_of_remote(plain)
            plain_number = live.plain.find(plain) if plain else -1
            plain_number = UNNUMBERED if plain and plain_number < 0 else plain_number
        return Query(
            ts=request.ts,
            user=live.users.find(request.user_id),
            text=-1 if described else number,
            plain=plain_number,
            plain_text=plain,
            vector_D=described[0][0] if described else None,
            found=self._guest_entities(described[1]) if described else None,
            place_3=place_3,
            is_remote=asks_remote or names_remote,
        )

    def _with_guest(self, query: Query, guest: Guest, described: Described) -> Query:
        """The query, asked by a guest."""
        now = max(query.ts, int(self._state.timeline.last_ts))
        sizes = self._state.history.rings.item_SH.shape[1], self._state.searches.rings.item_SH.shape[1]
        new_plain = query.plain_text if query.plain == UNNUMBERED else ""
        numbered = guests.number(guest, described, self._live, now, new_plain, sizes)
        return dataclasses.replace(query, user=-1, guest=numbered)

    def _describe(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.uint16], pa.Table | None]:
        """Vectors as bits of float16, and entities, of texts that have no number."""
        vector_XD = self._embedded(texts)
        rows = self._recognise(texts) if texts and self._live.found and self._recognise else None
        return vector_XD, rows

    def _embedded(self, texts: Sequence[str]) -> npt.NDArray[np.uint16]:
        """Vectors (X, D) as bits of float16."""
        dims = self._state.tables.matrix_TD.shape[1]
        if not texts:
            return np.empty((0, dims), np.uint16)
        vector_XD = np.asarray(self._embed(texts))
        if vector_XD.shape != (len(texts), dims) or not np.isfinite(vector_XD).all():
            raise DataError(
                f"embed gave {vector_XD.shape} for {len(texts)} texts, or values that are not finite",
                where="OnlineFeatures",
                remedy=f"Give one unit vector of {dims} dimensions for each text.",
            )
        return vector_XD.astype(np.float16).view(np.uint16)

    def _guest_entities(self, rows: pa.Table | None) -> found_entities.TextEntities | None:
        """The entities of one text; values that no other text has are numbered for this request only."""
        if rows is None or self._live.found is None:
            return None
        known, own = self._live.found.number, dict[str, int]()

        def number(word: str) -> int:
            return known[word] if word in known else own.setdefault(word, UNNUMBERED + len(own))

        return found_entities.of_texts(rows, number, 1)

    def _add_texts(self, texts: Sequence[str], vector_XD: npt.NDArray[np.uint16], rows: pa.Table | None) -> None:
        """Number those that nobody else has numbered meanwhile."""
        fresh = [i for i, text in enumerate(texts) if self._live.text(text) < 0]
        if len(fresh) < len(texts) and rows is not None:
            position = pc.index_in(rows.column("text"), value_set=pa.array(fresh, pa.int32()))
            rows = rows.set_column(0, "text", position).filter(position.is_valid())
        self._live.add_texts([texts[i] for i in fresh], vector_XD[fresh], rows)

    def _number_requests(self, request_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        for request_id in dict.fromkeys(request_ids):
            if request_id not in self._recent:
                self._recent[request_id] = self._requests
                self._requests += 1
        return np.array([self._recent[request_id] for request_id in request_ids], np.int64)

    def _fit(self) -> None:
        """Make the state as large as the tables."""
        if self._live.outgrown() or self._live.tables is not self._state.tables:
            self._state.grow(self._live.tables, self._live.sizes)


def conform_events(events: pa.Table) -> pa.Table:
    """As rows of `EVENTS`; what a source may leave out is null.

    Raises:
        SchemaError: a column is missing or does not convert.
    """
    return _conform(events, EVENTS)


def conform_jobs(jobs: pa.Table) -> pa.Table:
    """As rows of `schema.RAW_JOBS`; see `conform_events`."""
    return _conform(jobs, schema.RAW_JOBS)


def _conform(table: pa.Table, wanted: schema.Table) -> pa.Table:
    """The columns of `wanted` in its types; those that a source may lack are null.

    Raises:
        SchemaError: a column is missing or does not convert.
    """
    arrays = []
    for column in wanted.columns:
        kind = schema.arrow_type(column.type)
        if column.name not in table.column_names and column.required:
            raise SchemaError(f"the column {column.name!r} is missing", where=wanted.name, remedy=column.doc)
        given = table.column(column.name) if column.name in table.column_names else pa.nulls(len(table), kind)
        try:
            arrays.append(given.cast(kind))
        except pa.ArrowException as error:
            remedy = f"Give {column.type}."
            raise SchemaError(f"the column {column.name!r} does not fit: {error}", where=wanted.name, remedy=remedy) from None
    return pa.table(arrays, names=wanted.names())


def _rows(events: pa.Table, queries: Sequence[str], live: LiveTables, request_E: npt.NDArray[np.int64]) -> Rows:
    """Events as rows; users and jobs never met are numbered."""
    count = len(events)
    ts, clicked_at = (events.column(name).cast(pa.int64()).fill_null(int(NO_TIME)).to_numpy() for name in ("ts", "clicked_at"))
    clicked = events.column("clicked").to_numpy()
    return Rows(
        row=np.full(count, -1), request=request_E, ts=ts,
        user=np.array(live.add_users(events.column("user_id").to_pylist()), np.int32),
        job=np.array(live.add_jobs(events.column("job_id").to_pylist()), np.int32),
        query=live.texts.find_all(queries).astype(np.int32),
        position=events.column("position").fill_null(0).to_numpy().astype(np.int32),
        randomised=events.column("randomised").fill_null(False).to_numpy(),
        clicked_at=np.where(clicked, np.where(clicked_at == NO_TIME, ts, clicked_at), NO_TIME),
        counts=np.ones(count, np.bool_), out=np.full(count, -1),
    )  # fmt: skip
