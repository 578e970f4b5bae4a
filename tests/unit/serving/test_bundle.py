"""A bundle is read whole or refused, and the message names the part."""

import itertools
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tritower import storage
from tritower.errors import ArtifactError, StorageError
from tritower.serving import bundle, bundling, slimming
from tritower.serving.messages import Question
from tritower.serving.ranking import Ranking

from tests.support.bundles import Run


@pytest.fixture
def copy(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle of this test's own."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "copy"))


def test_a_bundle_says_what_it_is_made_of(bundle_folder: Path, run: Run) -> None:
    found = bundle.read(bundle_folder)
    assert set(found.parts) == {
        "ranker",
        "documents",
        "encoder",
        "dataset",
        "embeddings",
        "entities",
        "index",
        "clicks",
        "questions",
        "resident",
        "state",
    }
    dataset, encoder = (storage.read_json(path) for path in (
        run.sources.dataset / "dataset.json", run.sources.embeddings / "encoder.json"
    ))  # fmt: skip
    assert (found.claimed("dataset"), found.claimed("encoder")) == (dataset["fingerprint"], encoder["hash"])
    assert len(found.sha256) == len(found.claimed("model")) == 64
    assert found.claimed("mood") == ""


@pytest.mark.parametrize(
    "part", ["ranker", "documents", "encoder", "dataset", "embeddings", "entities", "index", "clicks", "state"]
)
def test_a_damaged_part_is_refused_by_name(copy: Path, part: str) -> None:
    largest = max((path for path in (copy / part).rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"the part '{part}' is damaged") as caught:
        Ranking.open(copy)
    assert largest.name in caught.value.where


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda folder: shutil.rmtree(folder / "documents"), "the part 'documents' is missing"),
        (lambda folder: (folder / "encoder" / "graph.bin").unlink(), "the part 'encoder' misses the file"),
        (lambda folder: (folder / "state" / "more.txt").write_text("x"), "the part 'state' has a file of another origin"),
        (lambda folder: (folder / "bundle.json").write_text("{}"), "the manifest is damaged"),
    ],
)
def test_what_is_missing_or_strange_is_refused_by_name(copy: Path, spoil: object, problem: str) -> None:
    spoil(copy)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=problem):
        bundle.read(copy)


def test_parts_of_two_runs_are_refused_by_name(copy: Path, run: Run, tmp_path: Path) -> None:
    """A part of another run, even where the manifest was written for both."""
    facts = storage.read_json(copy / "documents" / "documents.json")
    (copy / "documents" / "documents.json").write_text(json.dumps(facts | {"model": "another"}))
    with pytest.raises(ArtifactError, match=r"'documents' and 'ranker' are of different runs: model another and"):
        bundle.write(copy)
    manifest = storage.read_json(copy / "bundle.json")
    manifest["parts"]["encoder"]["claims"] = {"encoder": "another"}
    (copy / "bundle.json").write_text(json.dumps(manifest))
    (copy / "documents" / "documents.json").write_text(json.dumps(facts, indent=2) + "\n")
    with pytest.raises(ArtifactError, match="the manifest is not that of the part 'encoder'"):
        bundle.read(copy)


@pytest.mark.parametrize(("number", "words"), [(0, "too old for this server"), (99, "newer than this server's")])
def test_another_format_is_refused(copy: Path, number: int, words: str) -> None:
    facts = storage.read_json(copy / "bundle.json")
    (copy / "bundle.json").write_text(json.dumps(facts | {"format": number}))
    with pytest.raises(ArtifactError, match=f"the bundle has format {number}, {words}") as caught:
        bundle.read(copy)
    assert "python -m tritower.serving bundle" in caught.value.remedy


def test_a_bundle_of_the_format_before_is_served(copy: Path, ranking: Ranking, run: Run) -> None:
    """Format 1 had fp32 only, and said in encoder.json in which precision it is computed."""
    for file in (copy / "encoder").iterdir():
        if file.name.startswith(("graph_int8", "halves", "singles")):
            file.unlink()
    about = storage.read_json(copy / "encoder" / "encoder.json")
    storage.write_json(copy / "encoder" / "encoder.json", about | {"precision": "fp32"})
    bundle.write(copy)
    facts = storage.read_json(copy / "bundle.json")
    (copy / "bundle.json").write_text(json.dumps(facts | {"format": 1}))
    jobs = tuple(pq.read_table(run.sources.dataset / "jobs.parquet")["job_id"].to_pylist()[:20])
    question = Question(query="a driver of trams", candidates=jobs, ts=10**15)
    same = Ranking.open(ranking.folder, precision="fp32")
    assert Ranking.open(copy).answer(question).jobs == same.answer(question).jobs
    with pytest.raises(ArtifactError, match="the encoder of this bundle has no weights in int8") as caught:
        Ranking.open(copy, precision="int8")
    assert "python -m tritower.serving bundle" in caught.value.remedy and "precision=fp32" in caught.value.remedy


def test_what_the_bundle_has_checked_is_not_checked_by_its_readers(
    bundle_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Parts that were copied without a manifest of their own are no news."""
    assert not (bundle_folder / "state" / storage.MARK).exists()
    Ranking.open(bundle_folder)
    assert "unchecked" not in caplog.text


def test_a_bundle_that_is_replaced_while_it_is_read_is_never_mixed(
    bundle_folder: Path, other_folder: Path, run: Run, tmp_path: Path
) -> None:
    """Two bundles take turns at one place for three seconds, which no reading survives."""
    place, jobs = tmp_path / "place", tuple(pq.read_table(run.sources.dataset / "jobs.parquet")["job_id"].to_pylist()[:20])
    question = Question(query="nurse", candidates=jobs, ts=10**15)
    expected = {
        bundle.read(folder).sha256: Ranking.open(folder).answer(question).jobs for folder in (bundle_folder, other_folder)
    }
    place.symlink_to(bundle_folder)
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(Ranking.open, place)
        end = time.monotonic() + 3
        for folder in itertools.cycle((other_folder, bundle_folder)):
            (tmp_path / "next").symlink_to(folder)
            (tmp_path / "next").replace(place)
            if time.monotonic() > end:
                break
            time.sleep(0.05)
        answer = opened.result().answer(question)
    assert answer.jobs == expected[answer.versions.bundle]
    first, second = expected.values()
    assert first != second


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="this is no bundle"):
        bundle.read(tmp_path)


def test_an_encoder_of_another_run_is_refused_when_bundling(run: Run, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run.sources.encoder, tmp_path / "encoder"))
    (other / "modules.json").write_text((other / "modules.json").read_text() + "\n")
    with pytest.raises(ArtifactError, match="the embeddings are of encoder"):
        bundling._encoder(replace(run.sources, encoder=other), tmp_path / "out", "another")


def test_texts_are_numbered_anew_and_mean_the_same(bundle_folder: Path, run: Run) -> None:
    """Titles, documents, profiles, vectors and entities as before, by the texts' values; descriptions are gone."""
    before, after = run.sources.dataset, bundle_folder / "dataset"
    values = [pq.read_table(folder / "texts.parquet")["value"].to_pylist() for folder in (before, after)]
    assert len(values[1]) < len(values[0])
    jobs = [pq.read_table(folder / "jobs.parquet").to_pylist() for folder in (before, after)]
    users = [pq.read_table(folder / "users.parquet").to_pylist() for folder in (before, after)]
    for old, new in zip(*jobs, strict=True):
        for name in ("title_text", "document_text"):
            assert values[1][new[name]] == values[0][old[name]]
        assert (new["job_id"], new["company_key"], new["posted_at"]) == (old["job_id"], old["company_key"], old["posted_at"])
        assert new["description_text"] is None
    for old, new in zip(*users, strict=True):
        for name in ("interest_texts", "past_title_texts"):
            assert [values[1][t] for t in new[name]] == [values[0][t] for t in old[name] or []]
    vectors = [
        dict(zip(own, np.load(folder / "matrix.npy").tolist(), strict=True))
        for own, folder in zip(values, (run.sources.embeddings, bundle_folder / "embeddings"), strict=True)
    ]
    assert all(vectors[0][value] == vector for value, vector in vectors[1].items())
    assert run.sources.entities
    found = [
        {(own[row["text"]], row["label"], row["value"], row["start"]) for row in
         pq.read_table(folder / "entities.parquet").to_pylist()}
        for own, folder in zip(values, (run.sources.entities, bundle_folder / "entities"), strict=True)
    ]  # fmt: skip
    assert found[0] == found[1]


def test_embeddings_of_another_dataset_are_refused(run: Run, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run.sources.dataset, tmp_path / "dataset"))
    texts = pq.read_table(other / "texts.parquet").to_pylist()
    texts[0]["value"] = "something else"
    (out := tmp_path / "out").mkdir()
    pq.write_table(type(pq.read_table(other / "texts.parquet")).from_pylist(texts), other / "texts.parquet")
    with pytest.raises(ArtifactError, match="the embeddings are of another dataset"):
        slimming.write(other, run.sources.embeddings, None, out, {})


def test_the_command_makes_a_bundle_or_says_what_is_wrong(run: Run, tmp_path: Path) -> None:
    folders = {name: str(folder) for name, folder in vars(run.sources).items() if folder}
    named = [part for name, folder in folders.items() for part in (f"--{name}", folder)]
    command = [sys.executable, "-m", "tritower.serving", "bundle", *named, "--out", str(tmp_path / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == bundle.read(tmp_path / "bundle").sha256
    (tmp_path / "strange").mkdir()
    command[command.index("--encoder") + 1] = str(tmp_path / "strange")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
