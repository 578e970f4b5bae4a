"""Tables and state of `OnlineFeatures` as arrays in files, which processes map and share instead of making their own.

What a process changes, events that it counts and adverts that it takes in, is copied page by page and stays its own. Every
array has room behind for an eighth more; one that outgrows it is copied as a whole.

resident.json        version, knobs, sizes, places, requests of the state
*.npy, *.arrow       arrays and names, by whose they are
*_slots.npy          hash tables of the names (`lookup.py`)
small.npz            sums, clocks and the queue

Legend: as in the modules that make the arrays.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tritower import storage
from tritower.config import from_dict
from tritower.errors import ArtifactError
from tritower.features import counters, entities, rings
from tritower.features import state as saved_state
from tritower.features.config import FeaturesConfig
from tritower.features.feature_state import FeatureState
from tritower.features.live import ROOM, AllNames, LiveTables, Names
from tritower.features.places import PlaceCodes
from tritower.features.ratios import Codes
from tritower.features.requests import Requests
from tritower.features.similarity import Lists
from tritower.features.strings import Phrases
from tritower.features.tables import FeatureTables, Jobs, Texts, matrix
from tritower.features.timeline import Rows
from tritower.mapped import opened, own, read_strings, written

VERSION = 1
FILE = "resident.json"
ROOM_SHARE = 1 / 8
_JOBS = (
    "title_J", "document_J", "description_J", "company_J", "occupation_J", "place_3J", "posted_J", "remote_J",
)  # fmt: skip
_SCORED = ("plain", "companies")
_SUMS = ("moments_L4", "tally_P5", "prior_L2", "curve_P", "hour_1", "clock_1")
_ROWS = tuple(field.name for field in dataclasses.fields(Rows))
Array = npt.NDArray[Any]


def write(folder: Path, state: FeatureState, live: LiveTables) -> None:
    """Write them into a folder, which is made."""
    folder.mkdir(parents=True)
    tables = live.tables
    for kind in AllNames._fields:
        names: Names = getattr(live, kind)
        assert not names.added, "names of events would be lost"
        written(folder, kind, names.strings)
        written(folder, f"{kind}_slots", names.slots)
    for name, array in _arrays(state, live):
        written(folder, name, array)
    if live.found:
        written(folder, "entity_values", pa.array(list(live.found.number), pa.string()))
    line = state.timeline
    small = {name: getattr(state.counters.state, name) for name in _SUMS}
    small |= {"expected_Q": state.counters.expected_Q, "rate_Q": state.counters.rate_Q}
    for name, rows in (("impressions", line.impressions), ("clicks", line.clicks)):
        small |= {f"{name}_{field}": getattr(rows, field) for field in _ROWS}
    np.savez(folder / "small.npz", **small)
    facts = {
        "version": VERSION, "config": saved_state.knobs(state.config), "encoder": tables.encoder, "sizes": live.sizes,
        "past_requests": tables.past_requests, "places": {level: list(known) for level, known in tables.places.number.items()},
        "last_ts": int(line.last_ts), "pairs": state.pairs.used, "texts": len(tables.matrix_TD), "values": live.values,
        "codes": {kind: getattr(live, kind).phrases.as_is.texts for kind in _SCORED},
    }  # fmt: skip
    storage.write_json(folder / FILE, facts)


def is_readable(folder: Path) -> bool:
    """Whether this version reads it; another one makes its own."""
    return bool(storage.read_json(folder / FILE).get("version") == VERSION)


def read(folder: Path, dataset: Path, embeddings: Path) -> tuple[FeatureState, LiveTables]:
    """Map them.

    Args:
        folder: what `write` wrote.
        dataset, embeddings: that it was made of.

    Raises:
        ArtifactError: it is of another version, or the embeddings are of another dataset.
    """
    facts = storage.read_json(folder / FILE)
    if facts.get("version") != VERSION:
        problem = f"the arrays have version {facts.get('version')}, this tritower reads version {VERSION}"
        raise ArtifactError(problem, where=str(folder), remedy="Leave them out, or make them again.")
    names = _names(folder, facts["codes"])
    tables = _tables(folder, facts, names, dataset, embeddings)
    found = None
    if (folder / "entity_values.arrow").exists():
        number = {word: i for i, word in enumerate(read_strings(folder, "entity_values").to_pylist())}
        table = entities.Table(*(own(folder, f"entities_{name}") for name in entities.Table._fields))
        found = entities.Entities(table=table, number=number)
    live = LiveTables(names, tables, found, facts["sizes"], facts["values"])
    state = FeatureState(tables, from_dict(FeaturesConfig, facts["config"]), found, [0] * 4)
    state.base_L = np.cumsum([0, *facts["sizes"]])
    _restore(folder, facts, state)
    return state, live


def _arrays(state: FeatureState, live: LiveTables) -> Iterator[tuple[str, Array]]:
    tables = live.tables
    yield from ((f"jobs_{name}", getattr(tables.jobs, name)) for name in _JOBS)
    yield from ((f"texts_{name}", getattr(tables.texts, name)) for name in ("plain_T", "remote_T"))
    yield "extra_XD", np.concatenate([tables.extra_XD, np.zeros((ROOM, tables.extra_XD.shape[1]), np.uint16)])
    yield "home_3U", tables.home_3U
    for kind in ("wanted", "past"):
        lists: Lists = getattr(tables, kind)
        yield from ((f"{kind}_offset_U", lists.offset_U), (f"{kind}_text_E", lists.text_E))
    for kind in _SCORED:
        phrases: Phrases = getattr(live, kind).phrases
        for which, codes in (("as_is", phrases.as_is), ("ordered", phrases.ordered)):
            for name, used in (("code_C", int(codes.start[codes.texts])), ("start", codes.texts + 1), ("sign", codes.texts)):
                yield f"{kind}_{which}_{name}", _with_room(getattr(codes, name)[:used])
    if live.found:
        yield from ((f"entities_{name}", array) for name, array in live.found.table._asdict().items())
    yield "counters", state.counters.state.table_KW
    yield from (("pairs_key_B", state.pairs.key_B), ("pairs_number_B", state.pairs.number_B))
    for kind in ("history", "searches"):
        past: rings.Rings = getattr(state, kind).rings
        used = int(past.used_1[0])
        for name, array in past._asdict().items():
            yield f"{kind}_{name}", array if name in ("slot_U", "used_1") else _with_room(array[:used])


def _with_room(array: Array) -> Array:
    return np.concatenate([array, np.zeros((ROOM + int(ROOM_SHARE * len(array)), *array.shape[1:]), array.dtype)])


def _names(folder: Path, codes: dict[str, int]) -> AllNames:
    found = {}
    for kind in AllNames._fields:
        strings, phrases = read_strings(folder, kind), None
        if kind in codes:
            made = (_codes(folder, f"{kind}_{which}", codes[kind]) for which in ("as_is", "ordered"))
            phrases = Phrases((), *made)
        found[kind] = Names(strings, opened(folder, f"{kind}_slots"), phrases)
    return AllNames(**found)


def _codes(folder: Path, name: str, texts: int) -> Codes:
    code_C, start, sign = (own(folder, f"{name}_{what}") for what in ("code_C", "start", "sign"))
    return Codes(code_C, start, sign, texts)


def _tables(folder: Path, facts: dict[str, Any], names: AllNames, dataset: Path, embeddings: Path) -> FeatureTables:
    places = PlaceCodes()
    places.number = {level: {name: i for i, name in enumerate(known)} for level, known in facts["places"].items()}
    remote_T = own(folder, "texts_remote_T")
    log = Requests(dataset / "requests.parquet", remote_T, places)
    wanted, past = (
        Lists(offset_U=own(folder, f"{kind}_offset_U"), text_E=own(folder, f"{kind}_text_E")) for kind in ("wanted", "past")
    )
    return FeatureTables(
        jobs=Jobs(
            ids=names.jobs.strings, companies=names.companies.strings, occupations=names.occupations.strings,
            **{name: own(folder, f"jobs_{name}") for name in _JOBS},
        ),
        texts=Texts(
            values=names.texts.strings, plain_T=own(folder, "texts_plain_T"), plain=names.plain.strings, remote_T=remote_T
        ),
        user_ids=names.users.strings, places=places, encoder=facts["encoder"], requests=log, searches=log,
        past_requests=facts["past_requests"], extra_XD=own(folder, "extra_XD"), home_3U=own(folder, "home_3U"), wanted=wanted,
        past=past, matrix_TD=matrix(embeddings / "matrix.npy", facts["texts"]),
    )  # fmt: skip


def _restore(folder: Path, facts: dict[str, Any], state: FeatureState) -> None:
    with np.load(folder / "small.npz", allow_pickle=False) as small:
        sums = {name: small[name] for name in _SUMS}
        state.counters.state = counters.State(table_KW=own(folder, "counters"), **sums)
        state.counters.expected_Q, state.counters.rate_Q = small["expected_Q"], small["rate_Q"]
        line = state.timeline
        line.impressions, line.clicks = (
            Rows(**{field: small[f"{name}_{field}"] for field in _ROWS}) for name in ("impressions", "clicks")
        )
    line.last_ts = facts["last_ts"]
    state.pairs.key_B, state.pairs.number_B = own(folder, "pairs_key_B"), own(folder, "pairs_number_B")
    state.pairs.used = facts["pairs"]
    for kind in ("history", "searches"):
        getattr(state, kind).rings = rings.Rings(*(own(folder, f"{kind}_{name}") for name in rings.Rings._fields))
