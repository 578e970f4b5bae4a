"""Day after day from the saved state equals one run over everything, to the bit."""

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tritower import __version__, schema, storage
from tritower.errors import ArtifactError
from tritower.features import catalogue, source, state, step
from tritower.features.config import FeaturesConfig

from tests.support import tiny_dataset

CONFIG = FeaturesConfig(history_clicks=3, history_searches=2, ctr_half_life_days=0.02)
NAMES = ["row", *catalogue.whole_layout(with_entities=False).names]


@pytest.fixture(autouse=True, scope="module")
def small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "BATCH_ROWS", 40)
        yield


def compute(source: Path, out: Path, **more: object) -> dict[str, float]:
    return step.run(
        dataset=source / "dataset", embeddings=source / "embeddings", features=out, config=CONFIG, **more  # type: ignore[arg-type]
    )  # fmt: skip


def table(features: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(features / split, columns=NAMES) for split in schema.SPLITS])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_dataset.build(tmp_path_factory.mktemp("whole"), requests=80, tie_share=0.6)
    compute(folder, folder / "features")
    return folder


@pytest.mark.parametrize("cuts", [[0, 40, 80], [0, 7, 8, 33, 61, 80], [0, 79, 80]])
def test_daily_extracts_equal_a_full_rebuild(whole: Path, tmp_path: Path, cuts: list[int]) -> None:
    """Each day's dataset holds that day only, with other numbers, without the jobs, users and texts of the days before."""
    previous, parts = None, []
    for day, (first, last) in enumerate(itertools.pairwise(cuts)):
        folder = tiny_dataset.excerpt(whole, tmp_path / f"day{day}", first, last, seed=day)
        compute(folder, folder / "features", previous=previous, state_to=folder / "state")
        parts.append(table(folder / "features"))
        previous = folder / "state"
    assert pa.concat_tables(parts).equals(table(whole / "features"))


def test_a_dataset_that_reaches_back_is_not_counted_twice(whole: Path, tmp_path: Path) -> None:
    first = tiny_dataset.excerpt(whole, tmp_path / "first", 0, 37, seed=1)
    compute(first, tmp_path / "a")
    numbers = compute(whole, tmp_path / "b", previous=tmp_path / "a")
    assert numbers["rows"] == 43 * 5
    assert numbers["rows_skipped"] == 37 * 5
    assert table(tmp_path / "b").equals(table(whole / "features").slice(37 * 5))


def test_candidates_continue_from_a_state(whole: Path, tmp_path: Path) -> None:
    """With the state of all earlier days, candidates need no earlier rows."""
    first = tiny_dataset.excerpt(whole, tmp_path / "first", 0, 60, seed=1)
    compute(first, tmp_path / "a")
    rest = tiny_dataset.excerpt(whole, tmp_path / "rest", 60, 80, seed=2)
    (tmp_path / "c" / "candidates").mkdir(parents=True)
    rows = pq.read_table(rest / "dataset" / "impressions" / "test")
    pq.write_table(rows, tmp_path / "c" / "candidates" / "part-0.parquet")
    pq.write_table(pq.read_table(rest / "dataset" / "requests.parquet"), tmp_path / "c" / "requests.parquet")
    compute(rest, tmp_path / "f", previous=tmp_path / "a", candidates=tmp_path / "c")
    assert pq.read_table(tmp_path / "f" / "candidates", columns=NAMES).equals(table(whole / "features").slice(300))


def same_state(one: Path, other: Path) -> bool:
    """Whether two states hold the same under every name, whatever the order of the names."""
    tables = [path.name for path in sorted(one.glob("*.parquet")) if path.stem not in ("texts", "queue")]
    for name in tables:
        left, right = (pq.read_table(folder / name) for folder in (one, other))
        order = [(column, "ascending") for column in left.column_names[: 2 if name.startswith("counters") else 1]]
        if not left.sort_by(order).equals(right.sort_by(order)):
            return False
    sums = [np.load(folder / "sums.npz") for folder in (one, other)]
    abouts = [json.loads((folder / "state.json").read_text()) for folder in (one, other)]
    queues = [pq.read_table(folder / "queue.parquet") for folder in (one, other)]
    return (
        len(tables) == 9
        and abouts[0] == abouts[1]
        and queues[0].equals(queues[1])
        and all(np.array_equal(sums[0][k], sums[1][k]) for k in sums[0])
    )


@pytest.mark.parametrize("later", [0, 3_000_000_000])
def test_a_run_over_candidates_leaves_the_same_state(whole: Path, tmp_path: Path, later: int) -> None:
    """Candidates among the events, and candidates after all of them: the next day may continue from either run."""
    rows = pa.concat_tables([pq.read_table(whole / "dataset" / "impressions" / split) for split in ("train", "test")])
    ts = pc.add(rows.column("ts").cast(pa.int64()), later).cast(rows.schema.field("ts").type)
    rows = rows.set_column(rows.schema.get_field_index("ts"), rows.schema.field("ts"), ts).sort_by("ts")
    rows = rows.set_column(0, rows.schema.field(0), pa.array(range(rows.num_rows), pa.int64()))
    (tmp_path / "c" / "candidates").mkdir(parents=True)
    pq.write_table(rows, tmp_path / "c" / "candidates" / "part-0.parquet")
    shutil.copy(whole / "dataset" / "requests.parquet", tmp_path / "c" / "requests.parquet")
    compute(whole, tmp_path / "f", candidates=tmp_path / "c", state_to=tmp_path / "state")
    assert same_state(tmp_path / "state", whole / "features" / "state")


def test_other_knobs_or_another_encoder_are_refused(whole: Path, tmp_path: Path) -> None:
    first = tiny_dataset.excerpt(whole, tmp_path / "first", 0, 40, seed=1)
    compute(first, tmp_path / "a")
    rest = tiny_dataset.excerpt(whole, tmp_path / "rest", 79, 80, seed=2)
    with pytest.raises(ArtifactError) as caught:
        step.run(
            dataset=rest / "dataset", embeddings=rest / "embeddings", features=tmp_path / "b",
            config=replace(CONFIG, history_clicks=4), previous=tmp_path / "a",
        )  # fmt: skip
    # What differs, and nothing else.
    assert str(caught.value).startswith("the state was written with history_clicks=3, this run has history_clicks=4 (in ")
    about = json.loads((tmp_path / "a/state/state.json").read_text())
    for version in (about["version"] + 1, None):
        shutil.copytree(tmp_path / "a", tmp_path / "other", dirs_exist_ok=True)
        (tmp_path / "other/state/state.json").write_text(json.dumps(about | {"version": version}))
        (tmp_path / "other/state" / storage.MARK).unlink(missing_ok=True)
        ours = f"tritower {__version__} reads version {state.VERSION}"
        with pytest.raises(ArtifactError, match=f"the state has version {version}, {ours}"):
            compute(rest, tmp_path / "b", previous=tmp_path / "other")
    encoder = json.loads((rest / "embeddings" / "encoder.json").read_text())
    (rest / "embeddings" / "encoder.json").write_text(json.dumps(encoder | {"hash": "another"}))
    with pytest.raises(ArtifactError, match="another encoder"):
        compute(rest, tmp_path / "b", previous=tmp_path / "a")
