"""Bundles are exchanged while they answer: no request fails, none is answered by two, a bad one changes nothing."""

import gc
import shutil
import threading
import weakref
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tritower.errors import ArtifactError, ConfigError
from tritower.serving import watching
from tritower.serving.holder import Holder
from tritower.serving.messages import Question

from tests.support import family
from tests.support.bundles import Run


def test_two_bundles_are_swapped_under_questions(run: Run, bundle_folder: Path, other_folder: Path) -> None:
    holder = Holder()
    holder.swap(bundle_folder)
    jobs = tuple(pq.read_table(run.sources.dataset / "jobs.parquet")["job_id"].to_pylist()[:20])
    done, seen, failed = threading.Event(), set[tuple[str, str, float]](), list[BaseException]()

    def ask() -> None:
        try:
            while not done.is_set():
                answer = holder.get().answer(Question(query="nurse", candidates=jobs, ts=10**15))
                seen.add((answer.versions.bundle, answer.versions.model, answer.jobs[0].score))
        except BaseException as error:
            failed.append(error)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    for folder in (other_folder, bundle_folder, other_folder):
        now = holder.swap(folder).versions.bundle
        family.wait_for(lambda now=now: failed or any(bundle == now for bundle, _, _ in list(seen)), "an answer of it")
    done.set()
    for thread in asking:
        thread.join()
    assert not failed
    assert len(seen) == len({bundle for bundle, _, _ in seen}) == 2  # one model and one score for each bundle


def test_a_bundle_that_is_refused_leaves_the_one_at_work(bundle_folder: Path, other_folder: Path, tmp_path: Path) -> None:
    prepared: list[str] = []
    holder = Holder(prepare=lambda ranking: prepared.append(ranking.versions.name))
    first = holder.swap(bundle_folder)
    damaged = Path(shutil.copytree(other_folder, tmp_path / "damaged"))
    (damaged / "ranker" / "join.json").write_text("{}")
    with pytest.raises(ArtifactError, match="the part 'ranker' is damaged"):
        holder.swap(damaged)
    mixed = Path(shutil.copytree(other_folder, tmp_path / "mixed"))
    shutil.rmtree(mixed / "ranker")
    shutil.copytree(bundle_folder / "ranker", mixed / "ranker")
    with pytest.raises(ArtifactError, match="the part 'ranker'"):
        holder.swap(mixed)
    assert holder.get() is first and holder.other() is None and prepared == ["main"]


def test_two_names_at_most(bundle_folder: Path, other_folder: Path) -> None:
    holder = Holder()
    with pytest.raises(ConfigError, match="no bundle is called 'main'"):
        holder.get()
    holder.swap(bundle_folder)
    holder.swap(other_folder, "challenger")
    assert holder.get("challenger").versions.name == "challenger" and holder.other() is holder.get("challenger")
    with pytest.raises(ConfigError, match="2 bundles are at work: main, challenger"):
        holder.swap(bundle_folder, "third")
    holder.drop("challenger")
    assert holder.names() == ["main"]


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_fetched_copy_goes_with_its_last_request(bundle_folder: Path, scheme: str, request: pytest.FixtureRequest) -> None:
    from tritower import storage

    store = request.getfixturevalue("gcs" if scheme == "gs" else "s3")
    at = "gs://bucket/bundle" if scheme == "gs" else f"{store}/bundle"
    assert watching.tag(at) == ""
    storage.upload_tree(bundle_folder, at)
    assert watching.tag(at), "a server sees that there is one"
    holder = Holder()
    folder = holder.swap(at).folder
    kept = holder.get()
    holder.swap(bundle_folder)
    assert folder.exists() and kept.answer(Question(query="nurse", k=1)).jobs is not None
    gone = weakref.ref(kept)
    del kept
    gc.collect()
    assert gone() is None and not folder.exists()
