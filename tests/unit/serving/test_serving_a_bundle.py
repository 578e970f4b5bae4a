"""The whole server, with a real bundle: its answers, new bundles while it serves, and damaged and mixed ones."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from tritower.serving.messages import Question

from tests.support import bundles
from tests.support.serving_process import served, until
from tests.support.visitors import Visitors


def _command(bundle, *more, **config):
    knobs = json.dumps({"port": 0, "rate_per_s": 0} | config)
    return [
        sys.executable,
        "-m",
        "tritower.child",
        "tritower.serving",
        "serve",
        "--bundle",
        str(bundle),
        "--config",
        knobs,
        *more,
    ]


def _some(ranking, count=20):
    return sorted(ranking.guide.row_by_job if hasattr(ranking.guide, "row_by_job") else ranking._jobs.documents.row_by_job)[
        :count
    ]


@pytest.fixture
def own_bundle(bundle_folder, tmp_path):
    """A copy that may be changed."""
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


def _replace(folder, source):
    """Put another bundle in a folder's place, as a whole."""
    shutil.copytree(source, folder.with_name("new"))
    folder.rename(folder.with_name("old"))
    folder.with_name("new").rename(folder)
    shutil.rmtree(folder.with_name("old"))


def test_answers_are_the_rankings(own_bundle, ranking, tmp_path):
    """Over HTTP the same jobs with the same scores to the last digit."""
    candidates = _some(ranking)
    ts = 1_767_225_600_000_000
    here = ranking.answer(Question(query="nurse", candidates=tuple(candidates), k=7, ts=ts))
    with served(_command(own_bundle), tmp_path) as running, running.client() as client:
        there = client.post("/rank", json={"query": "nurse", "candidates": candidates, "k": 7, "ts": ts}).json()
        assert [(job["job_id"], job["score"]) for job in there["jobs"]] == [(job.job_id, job.score) for job in here.jobs]
        assert there["versions"]["bundle"] == ranking.versions.bundle
        assert client.get("/v2/models/tritower").json()["versions"] == [ranking.versions.bundle]
        strange = {"query": "", "user_id": "nobody knows", "candidates": ["no such job", candidates[0]], "city": "Atlantis"}
        answer = client.post("/rank", json=strange).json()
        assert ([job["job_id"] for job in answer["jobs"]], answer["unknown"]) == ([candidates[0]], ["no such job"])
        for query in ("\x00", "\U0001f469\u200d\u2695\ufe0f", "x" * 1_000, "ﷺ" * 300, "\u202e", "a" + "\u0301" * 500):
            assert client.post("/rank", json={"query": query, "candidates": candidates}).status_code == 200
        assert client.get("/", params={"query": "nurse"}).headers["content-type"].startswith("text/html")
        assert "Traceback" not in running.said()


@pytest.mark.slow
def test_a_new_model_comes_in_and_a_damaged_or_mixed_one_does_not(own_bundle, run, ranking, tmp_path):
    """While clients ask, none fails: the damaged one is named, the mixed one too, then the new one answers."""
    from dataclasses import replace

    from tritower.serving import bundling

    other = tmp_path / "other"
    bundling.write(replace(run.sources, model=bundles.random_ranker(tmp_path_of(run), seed=1)), other)
    body = {"query": "nurse", "candidates": _some(ranking)}
    with served(_command(own_bundle, poll_s=0.2, threads=2), tmp_path) as running, running.client() as client:

        def trouble():
            return client.get("/v2/health/ready").json()["trouble"]

        with Visitors(running.address, 3, body=body) as visitors:
            until(lambda: len(visitors.asked) > 5)
            mixed = shutil.copytree(other, tmp_path / "mixed")
            shutil.rmtree(mixed / "documents")
            shutil.copytree(own_bundle / "documents", mixed / "documents")
            _replace(own_bundle, mixed)
            until(lambda: "documents" in trouble())
            damaged = shutil.copytree(other, tmp_path / "damaged")
            file = next(path for path in sorted((damaged / "ranker").iterdir()) if path.suffix != ".json")
            file.write_bytes(file.read_bytes()[:-1] + b"?")
            manifest = json.loads((damaged / "bundle.json").read_text())
            (damaged / "bundle.json").write_text(json.dumps(manifest | {"code_version": "another"}))
            _replace(own_bundle, damaged)
            until(lambda: "ranker" in trouble())
            assert client.get("/v2/models/tritower").json()["versions"] == [ranking.versions.bundle]
            _replace(own_bundle, other)
            until(lambda: client.get("/v2/models/tritower").json()["versions"] != [ranking.versions.bundle])
            until(lambda: any(one.answer["versions"]["bundle"] != ranking.versions.bundle for one in visitors.asked[-3:]))
        assert visitors.failed == []
        assert trouble() == ""
    scores = {}
    for one in visitors.asked:
        order = json.dumps([(job["job_id"], round(job["score"], 5)) for job in one.answer["jobs"]])
        scores.setdefault(one.answer["versions"]["model"], set()).add(order[:2000])
    assert len(scores) == 2


def tmp_path_of(run):
    """The folder that a run wrote."""
    return run.sources.embeddings.parent


@pytest.mark.parametrize("part", ["encoder", "state"])
def test_a_damaged_part_is_named_at_the_start(own_bundle, part):
    file = max((own_bundle / part).iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    ended = subprocess.run(_command(own_bundle), env=dict(os.environ), capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "ERROR ArtifactError" in ended.stderr and part in ended.stderr
