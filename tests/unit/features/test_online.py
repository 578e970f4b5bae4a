"""One request, online: equal to the step's rows to the bit, pure, and open to names that nobody has met."""

import dataclasses
import re
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import schema, storage
from tritower.entities import step as entities
from tritower.entities.config import EntitiesConfig
from tritower.errors import ConfigError, DataError, SchemaError
from tritower.features import counters, step
from tritower.features.config import FeaturesConfig
from tritower.features.guest import Guest
from tritower.features.online import OnlineFeatures, Request
from tritower.ingest import step as ingest
from tritower.ingest.config import IngestConfig
from tritower.simulate import step as simulate
from tritower.simulate.config import SimulateConfig

from tests.support import tiny_dataset

CONFIG = FeaturesConfig(history_clicks=3, history_searches=2, ctr_half_life_days=0.02)
REQUESTS, FIRST = 90, 45
VALUES = {
    "nurse": ("TITLE", "nurse"),
    "rn": ("TITLE", "nurse"),
    "driver": ("TITLE", "truck driver"),
    "developer": ("TITLE", "developer"),
    "java": ("SKILL", "java"),
    "cdl": ("SKILL", "cdl"),
    "acme": ("COMPANY", "acme"),
    "health": ("COMPANY", "globex health"),
    "boston": ("PLACE", "boston"),
    "sr": ("SENIORITY", "senior"),
    "remote": ("EMPLOYMENT", "remote"),
}


def recognise(texts: Sequence[str]) -> pa.Table:
    """Word by word from a short list."""
    rows = []
    for number, text in enumerate(texts):
        for at, word in enumerate(re.findall(r"\w+", text.lower())):
            if word in VALUES:
                label, value = VALUES[word]
                rows.append({"text": number, "label": label, "value": value, "start": at, "end": at + 1})
    return pa.Table.from_pylist(rows, schema=schema.ENTITIES.arrow())


def embed(texts: Sequence[str]) -> np.ndarray:
    """A vector of each text that is always the same."""
    vectors = np.stack([np.random.default_rng(list(text.encode())).normal(size=16) + 1.0 for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def describe(folder: Path) -> None:
    """Vectors and entities of a dataset's texts by the functions above."""
    values = pq.read_table(folder / "dataset" / "texts.parquet")["value"].to_pylist()
    tiny_dataset.embed(folder / "embeddings", embed(values).astype(np.float16))
    (folder / "entities").mkdir(exist_ok=True)
    pq.write_table(recognise(values), folder / "entities" / "entities.parquet")


def compute(folder: Path, out: Path, **more: Any) -> None:
    step.run(
        dataset=folder / "dataset", embeddings=folder / "embeddings", entities=folder / "entities", features=out,
        config=CONFIG, **more,
    )  # fmt: skip


def opened(folder: Path, state: Path) -> OnlineFeatures:
    parts = (folder / name for name in ("dataset", "embeddings", "entities"))
    return OnlineFeatures.open(state, *parts, embed=embed, recognise=recognise)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with ties, late clicks and all features, and the state before request FIRST."""
    folder = tiny_dataset.build(tmp_path_factory.mktemp("whole"), requests=REQUESTS, tie_share=0.4)
    describe(folder)
    compute(folder, folder / "features")
    earlier = tiny_dataset.excerpt(folder, folder / "earlier", 0, FIRST, seed=3)
    describe(earlier)
    compute(earlier, earlier / "features")
    return folder


def raw_events(folder: Path) -> pa.Table:
    """The impressions of a dataset in the source's words."""
    read = {name: pq.read_table(folder / "dataset" / f"{name}.parquet") for name in ("jobs", "users", "requests", "texts")}
    rows = pa.concat_tables([pq.read_table(folder / "dataset" / "impressions" / split) for split in schema.SPLITS])
    named = {"request": "request_id", "user": "user_id", "job": "job_id"}
    columns = {new: read[f"{old}s"][new].take(rows[old]) for old, new in named.items()}
    place = {name: read["requests"][name].take(rows["request"]) for name in ("city", "region", "country")}
    columns |= {"query": read["texts"]["value"].take(rows["query_text"])} | place
    return pa.table(columns | {name: rows[name] for name in ("ts", "clicked", "position", "clicked_at", "randomised")})


def request_of(rows: pa.Table) -> Request:
    first = rows.slice(0, 1)
    words = {name: first[name][0].as_py() for name in ("user_id", "query", "city", "region", "country")}
    return Request(ts=first["ts"].cast(pa.int64())[0].as_py(), **words)


def expected(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(folder / "features" / split) for split in schema.SPLITS])


def same(got: dict[str, np.ndarray], wanted: pa.Table, names: Sequence[str]) -> list[str]:
    """The features that differ, to the bit."""
    differing = []
    for name in names:
        values, found = wanted[name].to_numpy(), got[name]
        is_equal = (found.view(np.uint32) == values.view(np.uint32)) | (np.isnan(found) & np.isnan(values))
        if not is_equal.all():
            differing.append(name)
    return differing


def replay(online: OnlineFeatures, folder: Path, first: int, names: Sequence[str], *, clicks_apart: bool) -> None:
    """Read, then observe, request by request from `first` on; clicks come with their impressions, or when they are made."""
    events, wanted = raw_events(folder), expected(folder)
    numbers = wanted["request"].to_numpy()
    starts = np.searchsorted(numbers, np.arange(numbers[-1] + 2)).tolist()
    waiting: list[pa.Table] = []
    for number in range(first, len(starts) - 1):
        here = starts[number], starts[number + 1] - starts[number]
        rows = events.slice(*here)
        request = request_of(rows)
        due = [click for click in waiting if click["clicked_at"].cast(pa.int64())[0].as_py() < request.ts]
        if due:
            online.observe(pa.concat_tables(due))
            waiting = [click for click in waiting if click not in due]
        got = online.read(request, rows["job_id"].to_pylist())
        assert same(got, wanted.slice(*here), names) == [], number
        if not clicks_apart:
            online.observe(rows)
            continue
        clicked = rows.filter(rows["clicked"])
        waiting += [clicked.slice(i, 1).append_column("event", pa.array(["click"])) for i in range(len(clicked))]
        waiting.sort(key=lambda click: click["clicked_at"][0].as_py())
        online.observe(rows.set_column(rows.schema.get_field_index("clicked"), "clicked", pa.array([False] * len(rows))))


@pytest.mark.parametrize("clicks_apart", [False, True])
def test_a_replay_equals_the_step_to_the_bit(whole: Path, clicks_apart: bool) -> None:
    online = opened(whole, whole / "earlier" / "features" / "state")
    assert online.names == [name for name in expected(whole).column_names if name in set(online.names)]
    assert len(online.names) > 60
    replay(online, whole, FIRST, online.names, clicks_apart=clicks_apart)
    # A kernel that were given its keys in another order than the step's would be compiled again where a server starts.
    compiled = [str(signature[1]) for signature in counters.count_pass.signatures]
    assert compiled and not [types for types in compiled if ", F)" in types]


@pytest.mark.slow
def test_a_replay_of_a_simulated_log_equals_the_step_to_the_bit(tmp_path: Path) -> None:
    """All steps as they are, the recogniser of the entities room included; the test split is replayed."""
    raw = tmp_path / "raw"
    simulate.run(out=raw, config=SimulateConfig(impressions=6_000))
    ingest.run(
        jobs=str(raw / "jobs.parquet"), impressions=str(raw / "impressions"), users=str(raw / "users.parquet"),
        dataset=tmp_path / "dataset", config=IngestConfig(),
    )  # fmt: skip
    describe(tmp_path)
    shutil.rmtree(tmp_path / "entities")
    entities.run(dataset=tmp_path / "dataset", entities=tmp_path / "entities", config=EntitiesConfig())
    compute(tmp_path, tmp_path / "features")
    earlier = tmp_path / "earlier" / "dataset"
    shutil.copytree(tmp_path / "dataset", earlier)
    (earlier / storage.MARK).unlink()
    for part in (earlier / "impressions" / "test").glob("*.parquet"):
        pq.write_table(pq.read_table(part, partitioning=None).slice(0, 0), part)
    step.run(
        dataset=earlier, embeddings=tmp_path / "embeddings", entities=tmp_path / "entities", features=tmp_path / "state",
        config=CONFIG,
    )  # fmt: skip
    first = int(pq.read_table(tmp_path / "features" / "test")["request"][0].as_py())
    online = opened(tmp_path, tmp_path / "state")
    assert len(online.names) == 70
    replay(online, tmp_path, first, online.names, clicks_apart=False)


def test_names_that_come_later_are_as_if_they_had_been_there(whole: Path, tmp_path: Path) -> None:
    """The catalogue knows the first two searches' jobs, users and texts; the rest comes while it runs."""
    day = tiny_dataset.excerpt(whole, tmp_path / "day", 0, 2, seed=1)
    describe(day)
    compute(day, day / "features")
    online = opened(day, day / "features")
    jobs = pq.read_table(whole / "dataset" / "jobs.parquet", columns=schema.RAW_JOBS.names())
    known = pq.read_table(day / "dataset" / "jobs.parquet")["job_id"].to_pylist()
    assert set(known) < set(jobs["job_id"].to_pylist())
    online.update(jobs)
    # Of users that the catalogue lacks nobody knows the profile.
    names = [name for name in online.names if not name.startswith(("home_", "wanted_", "past_", "seniority_user"))]
    replay(online, whole, 2, names, clicks_apart=False)


def test_jobs_are_asked_for_by_number_as_by_id(whole: Path) -> None:
    online = opened(whole, whole / "earlier" / "features")
    request = request_of(raw_events(whole))
    job_ids = ["nobody's", *pq.read_table(whole / "dataset" / "jobs.parquet")["job_id"].to_pylist()[:9:-1]]
    number_N = online.numbers(job_ids)
    assert number_N[0] == -1
    assert len(set(number_N.tolist())) == len(job_ids)
    by_id, by_number = online.read(request, job_ids), online.read(request, number_N)
    for name in online.names:
        np.testing.assert_array_equal(by_number[name], by_id[name])


def footprint(online: OnlineFeatures) -> list[Any]:
    """Everything that could stay behind after a read."""
    state, live = online._state, online._live
    arrays = [*state.counters.state, state.counters.expected_Q, *state.history.rings, *state.searches.rings, state.pairs.key_B]
    arrays += [live.tables.texts.plain_T, live.tables.extra_XD, live.tables.jobs.title_J, *live.found.table]
    names = (live.jobs, live.users, live.texts, live.plain, live.companies, live.occupations)
    numbers = [state.pairs.used, state.timeline.last_ts, len(state.timeline.impressions), len(state.timeline.clicks)]
    places = [len(known) for known in live.tables.places.number.values()]
    return [*(array.tobytes() for array in arrays), *map(len, names), *numbers, *places, len(live.found.number)]


def test_a_read_changes_nothing_and_answers_whoever_asks(whole: Path) -> None:
    online = opened(whole, whole / "earlier" / "features")
    rows = raw_events(whole).slice(FIRST * 5, 5)
    online.observe(rows)
    known, before = request_of(raw_events(whole).slice(FIRST * 5 + 5, 5)), footprint(online)
    first = online.read(known, ["j0", "j1", "j2"])
    later = known.ts + 5 * 24 * 3_600_000_000
    stranger = Request(ts=later, user_id="nobody", query="java zookeeper", city="Atlantis", region="XX", country="??")
    got = online.read(stranger, ["j0", "j1", "never advertised"])
    assert got["history_clicks"].tolist() == got["searches"].tolist() == [0, 0, 0]
    assert got["query_impressions"].tolist() == [0, 0, 0]
    assert set(got["query_occupation_impressions"][~np.isnan(got["query_occupation_impressions"])]) == {0}
    assert not np.isnan(got["title_token_set"][:2]).all()
    assert np.isfinite(got["query_document_cos"][:2]).all()
    assert np.isnan(
        [got[name][2] for name in ("title_token_set", "company_partial", "query_document_cos", "job_age_days")]
    ).all()
    assert got["job_impressions"][2] == 0
    assert set(got["query_city_match"][~np.isnan(got["query_city_match"])]) <= {0}
    assert footprint(online) == before
    again = online.read(known, ["j0", "j1", "j2"])
    assert all(np.array_equal(again[name], first[name], equal_nan=True) for name in online.names)
    # An older request is answered as of the last impression.
    old = online.read(Request(ts=known.ts - 10**12, user_id=known.user_id, query=known.query), ["j0"])
    assert np.isfinite(old["job_impressions"]).all()
    assert online.read(known, [])["job_ctr"].shape == (0,)


def event(**more: Any) -> pa.Table:
    row = {"request_id": "new", "user_id": "nobody", "query": "java", "job_id": "j0", "clicked": False} | more
    ts = pa.array([row.pop("ts")]).cast(pa.timestamp("us", tz="UTC"))
    return pa.table({"ts": ts} | {name: [value] for name, value in row.items()})


def test_late_events_count_from_their_arrival(whole: Path) -> None:
    online = opened(whole, whole / "earlier" / "features")
    last = int(online._state.timeline.last_ts)
    asked = Request(ts=last + 10, user_id="nobody", query="java")

    def counts(ts: int) -> tuple[float, float, float]:
        got = online.read(Request(ts=ts, user_id="nobody", query="java"), ["j0"])
        return got["job_impressions"][0], got["job_clicks"][0], got["history_days_since_click"][0] * 86_400_000_000

    at_last, (shown, clicks, _) = counts(last), counts(last + 1)
    online.observe(event(ts=last - 10**10))
    assert counts(last)[:2] == at_last[:2]  # as if it had happened at that instant, which nobody sees of itself
    more = np.expm1(shown) + 1
    assert counts(last + 1)[0] == np.float32(np.log1p(more))
    online.observe(event(ts=last - 10**9, clicked=True, event="click"))
    assert counts(last)[1] == at_last[1]
    assert counts(last + 1)[1] > clicks
    assert counts(last + 1)[2] == pytest.approx(1)
    # Two parts of one search are one search.
    online.observe(event(ts=last + 5, request_id="two"))
    online.observe(event(ts=last + 5, request_id="two", job_id="j1"))
    assert online.read(asked, ["j0"])["searches"][0] == np.float32(np.log1p(2))


def test_jobs_change_and_expire_while_it_runs(whole: Path) -> None:
    online = opened(whole, whole / "earlier" / "features")
    last = int(online._state.timeline.last_ts)
    asked = Request(ts=last + 10, user_id="nobody", query="zoo keeper")
    job = {"job_id": ["fresh"], "title": ["Zoo Keeper"], "company": ["Ark"], "city": ["Boston"], "region": ["MA"]}
    online.update(pa.table(job))
    got = online.read(asked, ["fresh"])
    cosine = float(embed(["zoo keeper"])[0] @ embed(["Zoo Keeper, Ark"])[0])
    assert got["title_token_set"][0] == 1
    assert got["query_document_cos"][0] == pytest.approx(cosine, abs=1e-3)
    online.observe(event(ts=last + 1, job_id="fresh", clicked=True, query="zoo keeper"))
    online.update(pa.table(job | {"title": ["Lion Tamer"]}))
    got = online.read(asked, ["fresh", "j0"])
    assert got["title_token_set"][0] < 1
    assert got["job_impressions"][0] == np.float32(np.log1p(1))
    # Nobody asks for an expired job any more; whoever clicked it is still known to have been at its company.
    online.update(pa.table({"job_id": ["other"], "title": ["Cook"], "company": ["Ark"]}))
    assert online.read(asked, ["other"])["history_same_company"][0] == 1


def test_the_example_of_the_readme_runs(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(step.__file__).parent / "README.md").read_text()
    example = re.findall(r"```python\n(.*?)```", readme.partition("## One request, online")[2], re.S)[0]
    for name in ("dataset", "embeddings", "entities"):
        (tmp_path / name).symlink_to(whole / name)
    (tmp_path / "state").symlink_to(whole / "earlier" / "features" / "state")
    monkeypatch.chdir(tmp_path)
    jobs = pq.read_table(whole / "dataset" / "jobs.parquet", columns=schema.RAW_JOBS.names())
    names: dict[str, Any] = {"embed": embed, "recognise": recognise, "events": raw_events(whole).slice(FIRST * 5), "jobs": jobs}
    exec(example, names)
    assert [len(values) for values in names["features"].values()] == [3] * len(names["online"].names)


def test_bad_input_is_named(whole: Path) -> None:
    parts = [whole / name for name in ("dataset", "embeddings", "entities")]
    with pytest.raises(ConfigError, match="without `recognise`"):
        OnlineFeatures.open(whole / "earlier" / "features", *parts, embed=embed)
    online = opened(whole, whole / "earlier" / "features")
    with pytest.raises(SchemaError, match="'user_id' is missing"):
        online.observe(event(ts=0).drop_columns("user_id"))
    with pytest.raises(SchemaError, match=r"'clicked' does not fit"):
        online.observe(event(ts=0, clicked="perhaps"))
    broken = OnlineFeatures.open(whole / "earlier" / "features", *parts, embed=lambda _: np.zeros((1, 3)), recognise=recognise)
    with pytest.raises(DataError, match="16 dimensions"):
        broken.read(Request(ts=0, user_id="u", query="never seen"), ["j0"])


def test_threads_read_while_one_observes(whole: Path) -> None:
    """Every answer is that of a moment between two calls of `observe`, never of one half done."""
    online = opened(whole, whole / "earlier" / "features")
    events = raw_events(whole).slice(FIRST * 5)
    asked = Request(ts=2 * 10**15, user_id="u1", query="nurse")
    jobs = [f"j{number}" for number in range(14)]

    def answer() -> bytes:
        return b"".join(values.tobytes() for values in online.read(asked, jobs).values())

    done, answers = threading.Event(), [set[bytes]() for _ in range(3)]

    def ask(mine: set[bytes]) -> None:
        while not done.is_set():
            mine.add(answer())

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in answers]
    moments = {answer()}
    for thread in threads:
        thread.start()
    for number in range(REQUESTS - FIRST):
        online.observe(events.slice(number * 5, 5))
        moments.add(answer())
    done.set()
    for thread in threads:
        thread.join()
    assert len(moments) > 20
    assert set().union(*answers) <= moments
    assert len(set().union(*answers)) > 5


KNOWN = {"interests": ["Night Baker", "rn", ""], "past_titles": ["Sr. Baker of bread", "Java Developer"]}
"""Titles of which some are in no table, and one is blank."""


@pytest.mark.parametrize("query", ["nurse", "", "bake bread", "Bake  Bread!"])
def test_a_guest_is_read_as_a_user_of_the_same_past(tmp_path: Path, query: str) -> None:
    """All features to the bit, of a user whom the tables know, and of a guest whose titles and searches they do not know.

    One log has the user in its tables, and what the user did in its state; in the other one the user's events come from
    somebody else, so that counters agree.
    """
    folders = [tiny_dataset.build(tmp_path / name, requests=40, tie_share=0.4) for name in ("user", "guest")]
    ts = tiny_dataset.START + 10**12
    searches = [("nurse", ts - 50), ("bake bread", ts - 40), ("", ts - 30), ("bread baker", ts - 30), ("nurse", ts - 20)]
    clicks = [(f"j{number}", ts - 47 + 3 * n) for n, number in enumerate((3, 1, 3, 7, 2))]
    read = []
    for folder, name in zip(folders, ("u9", "somebody"), strict=True):
        if name == "u9":
            _add_user(folder / "dataset", name)
        describe(folder)
        compute(folder, folder / "features")
        online = opened(folder, folder / "features")
        happened = [(when, {"query": text, "job_id": "j5", "request_id": f"s{text}{when}"}) for text, when in searches]
        happened += [(when, {"query": "", "job_id": job, "request_id": f"c{when}", "clicked": True}) for job, when in clicks]
        for when, what in sorted(happened, key=lambda one: one[0]):
            online.observe(event(ts=when, user_id=name, **what))
        read.append(online)
    guest = Guest(
        wanted_titles=tuple(KNOWN["interests"]), past_titles=tuple(KNOWN["past_titles"]),
        clicks=(*clicks[::-1], ("no such job", ts - 1), ("j4", ts)), searches=(*searches[::-1], ("late", ts)),
    )  # fmt: skip
    asked, jobs = Request(ts=ts, user_id="u9", query=query), [f"j{number}" for number in range(14)]
    wanted = read[0].read(asked, jobs)
    got = read[1].read(dataclasses.replace(asked, guest=guest), jobs)
    assert same(got, pa.table(wanted), list(wanted)) == []
    assert all(np.isfinite(wanted[name]).any() for name in ("history_cos_max", "searches_cos_last", "wanted_token_set_max"))
    assert np.isfinite(wanted["seniority_user_distance"]).any()
    before = read[1].read(asked, jobs)
    assert same(got, pa.table(before), list(before)) != []


def _add_user(dataset: Path, name: str) -> None:
    """One more user, with a profile and no home."""
    texts, users = (pq.read_table(dataset / f"{kind}.parquet") for kind in ("texts", "users"))
    values = texts["value"].to_pylist()
    fresh = [title for title in dict.fromkeys([*KNOWN["interests"], *KNOWN["past_titles"]]) if title not in values]
    rows = [
        {"text": len(values) + i, "value": v, "is_query": False, "is_title": False, "is_document": False, "is_profile": True,
         "is_description": False} for i, v in enumerate(fresh)
    ]  # fmt: skip
    more = pa.Table.from_pylist(rows, schema=texts.schema)
    pq.write_table(pa.concat_tables([texts, more]), dataset / "texts.parquet")
    values += fresh
    one = {
        "user": len(users), "user_id": name, **KNOWN,
        "interest_texts": [values.index(title) for title in KNOWN["interests"]],
        "past_title_texts": [values.index(title) for title in KNOWN["past_titles"]],
    }  # fmt: skip
    pq.write_table(pa.concat_tables([users, pa.Table.from_pylist([one], schema=users.schema)]), dataset / "users.parquet")


def resident() -> int:
    """Bytes of this process's own memory: pages of files come and go as others need room."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("reads", "limit"),
    [
        pytest.param(20_000, 10.0, marks=pytest.mark.slow),
        pytest.param(1_000_000, 0.2, marks=[pytest.mark.hours, pytest.mark.timeout(7_200)]),
    ],
)
def test_memory_is_flat_over_reads(whole: Path, reads: int, limit: float) -> None:
    """Bytes per read by the slope of 50 measurements, each read with a user, a query and a place of its own."""
    online = opened(whole, whole / "earlier" / "features")
    ts, jobs = int(online._state.timeline.last_ts) + 10, [f"j{number}" for number in range(10)]

    def read(number: int) -> None:
        online.read(Request(ts=ts + number, user_id=f"x{number}", query=f"nurse {number}", city=f"city {number}"), jobs)

    for number in range(1_000):
        read(-number)
    at, used = [], []
    for number in range(reads):
        read(number)
        if number % (reads // 50) == 0:
            at.append(number)
            used.append(resident())
    assert np.polyfit(at, used, 1)[0] < limit


def test_a_users_past_is_what_was_observed(whole: Path) -> None:
    """Against a plain count over the log: newest first, as many as the rings hold, and how many there were in all."""
    online = opened(whole, whole / "earlier" / "features")
    events = raw_events(whole)
    events = events.slice(int(np.searchsorted(expected(whole)["request"].to_numpy(), FIRST)))
    online.observe(events)
    rows = raw_events(whole).to_pylist()
    users = sorted({row["user_id"] for row in rows})
    counts = {}
    for user in users:
        clicks = sorted([(r["clicked_at"], r["job_id"]) for r in rows if r["user_id"] == user and r["clicked"]], reverse=True)
        searched = {r["request_id"]: (r["ts"], r["query"]) for r in rows if r["user_id"] == user and r["query"]}
        past = online.past(user)
        counts[user] = past.clicked
        assert past.clicked == len(clicks) and past.searched == len(searched), user
        held = {(micros(ts), job) for ts, job in clicks}
        assert len(past.clicks) >= min(CONFIG.history_clicks, len(clicks))
        assert {(ts, job) for job, ts in past.clicks} <= held
        times = [ts for _, ts in past.clicks]
        assert times == sorted(times, reverse=True) and times[:1] == [micros(ts) for ts, _ in clicks[:1]]
        assert {text for text, _ in past.searches} <= {text for _, text in searched.values()}
    assert online.past("nobody").clicked == 0 == len(online.past("nobody").clicks)
    most = online.busiest(3)
    # Clicks of the last instant wait to be counted, so the order may differ by one.
    assert sorted(counts[user] for user in most) == sorted(counts.values())[-3:]


def micros(time: Any) -> int:
    """Microseconds since 1970 of a time of the log."""
    return int(pa.scalar(time).cast(pa.int64()).as_py())
