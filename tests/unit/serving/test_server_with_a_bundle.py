"""The whole server, with a real bundle: its answers, new bundles while it serves, damaged and mixed ones, a worker killed."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tritower import processes, storage
from tritower.serving import bundle
from tritower.serving.messages import Question
from tritower.serving.ranking import Ranking

from tests.support.bundles import Run
from tests.support.server_workers import Workers
from tests.support.serving_process import served, until
from tests.support.visitors import Visitors

LONG_S = 240.0


def _command(location: Path, **config: object) -> list[str]:
    knobs = json.dumps({"port": 0, "rate_per_s": 0} | config)
    return processes.module("tritower.serving", "serve", "--bundle", str(location), "--config", knobs)


@pytest.fixture
def jobs(run: Run) -> list[str]:
    """Some candidates."""
    return [str(job) for job in pq.read_table(run.sources.dataset / "jobs.parquet")["job_id"].to_pylist()[:20]]


@pytest.fixture
def place(bundle_folder: Path, tmp_path: Path) -> Path:
    """A location that a server looks at; a link, so that what is there changes at once."""
    (tmp_path / "place").symlink_to(bundle_folder)
    return tmp_path / "place"


def _put(place: Path, folder: Path) -> None:
    place.with_name("next").symlink_to(folder)
    place.with_name("next").replace(place)


def _damage(file: Path) -> None:
    """Turn one bit of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _mixed(folder: Path, part: str, source: Path, out: Path) -> Path:
    """A copy with a part of another bundle, and a manifest that is written for both."""
    shutil.copytree(folder, out)
    shutil.rmtree(out / part)
    shutil.copytree(source / part, out / part)
    facts, theirs = storage.read_json(out / bundle.MANIFEST), storage.read_json(source / bundle.MANIFEST)
    facts["parts"][part] = theirs["parts"][part]
    storage.write_json(out / bundle.MANIFEST, facts)
    return out


@pytest.mark.slow
def test_a_new_model_comes_in_and_a_damaged_or_mixed_one_does_not(
    bundle_folder: Path, other_folder: Path, place: Path, jobs: list[str], tmp_path: Path
) -> None:
    """No request fails, and each answer has the scores of the version that it names."""
    question = Question(query="nurse", candidates=tuple(jobs), ts=10**15)
    both = [Ranking.open(folder) for folder in (bundle_folder, other_folder)]
    expected = {one.versions.bundle: {job.job_id: job.score for job in one.answer(question).jobs} for one in both}
    old, new = expected
    damaged = Path(shutil.copytree(other_folder, tmp_path / "damaged"))
    largest = max((damaged / "ranker").iterdir(), key=lambda path: path.stat().st_size)
    _damage(largest)
    manifest = storage.read_json(damaged / bundle.MANIFEST)
    storage.write_json(damaged / bundle.MANIFEST, manifest | {"code_version": "another"})
    mixed = _mixed(other_folder, "documents", bundle_folder, tmp_path / "mixed")
    body = {"query": "nurse", "candidates": jobs, "ts": 10**15}
    with served(_command(place, poll_s=0.2, threads=2), tmp_path) as running, running.client() as client:

        def trouble() -> str:
            return str(client.get("/v2/health/ready").json()["trouble"])

        def version() -> str:
            return str(client.get("/v2/models/tritower").json()["versions"][0])

        with Visitors(running.address, 3, body=body) as visitors:
            until(lambda: len(visitors.asked) > 5, LONG_S)
            _put(place, mixed)
            until(lambda: "'documents'" in trouble() and "are of different runs: model" in trouble(), LONG_S)
            _put(place, damaged)
            until(lambda: "the part 'ranker' is damaged" in trouble(), LONG_S)
            assert version() == old
            _put(place, other_folder)
            until(lambda: version() == new, LONG_S)
            seen = len(visitors.asked)
            until(lambda: len(visitors.asked) > seen + 6, LONG_S)
        assert trouble() == ""
        assert visitors.failed == []
    assert {one.answer["versions"]["bundle"] for one in visitors.asked} == {old, new}
    for one in visitors.asked:
        assert {job["job_id"]: job["score"] for job in one.answer["jobs"]} == expected[one.answer["versions"]["bundle"]]


@pytest.mark.parametrize("kind", ["mixed", "damaged"])
def test_an_encoder_of_another_run_or_a_damaged_one_never_serves(bundle_folder: Path, tmp_path: Path, kind: str) -> None:
    """The process ends before it listens, and names the part."""
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    if kind == "mixed":
        about = storage.read_json(folder / "encoder" / "encoder.json")
        storage.write_json(folder / "encoder" / "encoder.json", about | {"encoder": "f" * 64})
        facts = storage.read_json(folder / bundle.MANIFEST)
        facts["parts"]["encoder"] = _facts_of(folder / "encoder", facts["parts"]["encoder"], "f" * 64)
        storage.write_json(folder / bundle.MANIFEST, facts)
        said = "are of different runs: encoder"
    else:
        _damage(folder / "encoder" / "graph.bin")
        said = "the part 'encoder' is damaged"
    ended = subprocess.run(_command(folder), capture_output=True, text=True, timeout=LONG_S, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "ArtifactError" in ended.stderr and said in ended.stderr and "'encoder'" in ended.stderr


def _facts_of(place: Path, before: dict, encoder: str) -> dict:  # type: ignore[type-arg]
    """The manifest's entry of the part, as whoever put it together by hand would write it."""
    name, file = "encoder.json", place / "encoder.json"
    files = before["files"] | {name: {"bytes": file.stat().st_size, "sha256": bundle.manifest.digest(file)}}
    return {"sha256": bundle._digest(files), "files": files, "claims": {"encoder": encoder}}


@pytest.mark.slow
def test_a_killed_worker_with_a_bundle_loses_its_requests_in_flight_and_a_spare_one_takes_its_place(
    place: Path, jobs: list[str], tmp_path: Path
) -> None:
    body = {"query": "nurse", "candidates": jobs}
    with served(_command(place, workers=2, threads=2), tmp_path) as running:
        workers = Workers.of(running)
        with Visitors(running.address, 4, body=body) as visitors:
            until(lambda: len(visitors.asked) > 20, LONG_S)
            spare, victim = workers.spare(LONG_S), max(workers.serving(), key=lambda one: sum(one.cpu_times()[:2]))
            victim.kill()
            victim.wait(LONG_S)
            killed = time.monotonic()
            until(lambda: spare in workers.serving(), LONG_S)
            seen = len(visitors.asked)
            until(lambda: len(visitors.asked) > seen + 8, LONG_S)
        assert len(visitors.failed) <= 4
        assert all(one.began <= killed for one in visitors.failed)
        assert f"worker {victim.pid} died" in running.said()
