"""A week of daily runs that find champion and state by the pointer: day 4 fails, day 5 repairs it.

The components as plain calls, in the order of the pipelines, with real texts, encoder and ranker.
"""

import inspect
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from kfp import dsl
from kfp.dsl.types import type_annotations
from tritower import storage
from tritower.champion import kept, pointer
from tritower.champion.component import fetch, record, resolve
from tritower.encoder.component import embed, finetune
from tritower.entities.component import entities
from tritower.errors import DataError, TritowerError
from tritower.features.component import features
from tritower.ingest.component import ingest
from tritower.ranker.component import ranker, score
from tritower.recommend.component import candidates, recommend
from tritower.storage import manifest

DAY_US = 86_400_000_000
DAYS = 7
BATCH = {"split": "all", "latest_per_user": True, "answer_at": "end", "candidates_per_search": 20}


def call(component: Any, folder: Path, **inputs: Any) -> dict[str, Any]:
    """Run a component as a step does, its outputs in `folder`; the output artifacts by name."""
    outputs = {}
    for name, parameter in inspect.signature(component.python_func).parameters.items():
        if type_annotations.is_artifact_wrapped_in_Output(parameter.annotation):
            kind = type_annotations.get_io_artifact_class(parameter.annotation)
            outputs[name] = kind(uri=str(folder / component.name / name))
    folder.joinpath(component.name).mkdir(parents=True, exist_ok=True)
    component.python_func(**inputs, **outputs)
    return outputs


class Board:
    """A job board's log that grows by a day, and the runs on it."""

    def __init__(self, log: Path, folder: Path, root: str) -> None:
        self.folder, self.root = folder, root
        table = pq.read_table(log / "impressions")
        ts = table.column("ts").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        table, ts = table.filter(ts.is_valid()), ts.drop_null()
        day = pc.subtract(
            pc.divide(pc.subtract(ts, pc.min(ts)), DAY_US),
            pc.subtract(pc.divide(pc.subtract(pc.max(ts), pc.min(ts)), DAY_US), DAYS),
        )
        self.days = {number: table.filter(pc.equal(day, number)) for number in range(1, DAYS + 1)}
        self.data = {
            "jobs": str(log / "jobs.parquet"),
            "users": str(log / "users.parquet"),
            "impressions": str(folder / "impressions"),
        }
        (folder / "impressions").mkdir(parents=True)
        pq.write_table(table.filter(pc.less_equal(day, 0)), folder / "impressions" / "before.parquet")

    def arrives(self, day: int, *, is_torn: bool = False) -> None:
        """The file of a day, the second half of it missing where the delivery broke off."""
        place = self.folder / "impressions" / f"day{day}.parquet"
        pq.write_table(self.days[day], place)
        if is_torn:
            place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])

    def _prepared(self, here: Path) -> tuple[Any, Any]:
        dataset = call(ingest, here, **self.data, config={"max_quarantined_share": 1})["dataset"]
        return dataset, call(entities, here, dataset=dataset)["entities"]

    def training(self, name: str) -> dict[str, Any]:
        """Train a small ranker on what is there; what it leaves, for `record`."""
        here = self.folder / name
        dataset, found = self._prepared(here)
        tuned = call(finetune, here, dataset=dataset.uri, config={"epochs": 0})
        encoder = next(value for value in tuned.values() if isinstance(value, dsl.Model))
        embeddings = call(embed, here, dataset=dataset.uri, encoder=encoder.uri)["embeddings"]
        computed = call(features, here, dataset=dataset, embeddings=embeddings, entities=found)
        knobs = {"training.epochs": 1, "members": 1}
        trained = call(ranker, here, features=computed["features"].uri, embeddings=embeddings.uri, config=knobs)
        model = next(value for value in trained.values() if isinstance(value, dsl.Model))
        return {"state": computed["state"], "ranker_model": model, "encoder": encoder, "run": name}

    def refused(self, left: dict[str, Any], version: int = 0) -> None:
        """The end of a training whose gate holds: a log of this size can prove nothing."""
        with tempfile.TemporaryDirectory(prefix="refused-", dir=self.folder) as folder:
            again = {
                name: type(one)(uri=shutil.copytree(one.path, f"{folder}/{name}"))
                for name, one in left.items()
                if name != "run"
            }
            record.python_func(**again, champion=self.root, gate="hold", version=version, run="refused")

    def batch(self, name: str, *, with_state: bool = True) -> pa.Table:
        """A run of the pipeline `batch`; the ranked lists."""
        here = self.folder / name
        found = resolve.python_func(champion=self.root)
        champion = call(fetch, here, ranker_model_at=found.ranker_model, encoder_at=found.encoder)
        dataset, known = self._prepared(here)
        embeddings = call(embed, here, dataset=dataset.uri, encoder=champion["encoder"].uri)["embeddings"]
        chosen = call(candidates, here, dataset=dataset, embeddings=embeddings, config=BATCH)["candidates"]
        inputs = {"dataset": dataset, "embeddings": embeddings, "candidates": chosen, "entities": known}
        computed = call(features, here, **inputs, previous_state=found.state if with_state else "")
        to_score = {"features": computed["features"], "embeddings": embeddings}
        scores = call(score, here, **to_score, model=champion["ranker_model"])["scores"]
        best = call(recommend, here, dataset=dataset, candidates=chosen, scores=scores)["recommendations"]
        if with_state:
            record.python_func(state=computed["state"], champion=self.root, version=found.version, run=name)
        return pq.read_table(best.path)

    def pointer(self) -> pointer.Pointer:
        """What the pointer says; everything that it names is whole and of a run that was not refused."""
        found = kept.read(self.root)
        if found.champion and found.state:
            for place in (found.champion.ranker_model, found.champion.encoder, found.state.location):
                assert (Path(place) / storage.MARK).is_file() and "refused" not in place and "torn" not in place
                manifest.check(place)
        return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_seven_days_equal_one_run_over_the_whole_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "tritower.simulate", "--out", str(log), "--impressions", "2500"]
    subprocess.run(command, check=True, capture_output=True)
    board = Board(log, tmp_path / "board", str(tmp_path / "chain"))

    left = board.training("champion")
    board.refused(left)
    assert board.pointer() == pointer.Pointer()
    with pytest.raises(TritowerError, match="no champion yet"):
        board.batch("too-early")
    record.python_func(**left, champion=board.root, gate="pass")
    first = board.pointer()
    assert first.champion and first.champion.run == "champion" and first.state

    reached = [first.state.reaches_to_us]
    for day in range(1, DAYS + 1):
        board.arrives(day, is_torn=day == 4)
        before = board.pointer()
        if day == 4:
            with pytest.raises(DataError):
                board.batch("day4-torn")
            assert board.pointer() == before
            continue
        if day == 5:
            board.arrives(4)
        ranked = board.batch(f"day{day}")
        now = board.pointer()
        assert now.champion == first.champion and now.state and now.state.run == f"day{day}"
        reached.append(now.state.reaches_to_us)
        if day == 2:  # tried again, as a backend does with a step whose node is gone
            again = board.batch("day2-again")
            assert again.equals(ranked) and board.pointer() == now
        if day == 3:
            board.refused(left, version=1)
            assert board.pointer() == now
    assert reached == sorted(set(reached)) and len(reached) == DAYS

    whole = board.batch("whole", with_state=False)
    assert ranked.num_rows > 300 and ranked.schema.equals(whole.schema)
    for name in whole.schema.names:
        assert ranked.column(name).equals(whole.column(name)), name
    shutil.rmtree(tmp_path / "board")
