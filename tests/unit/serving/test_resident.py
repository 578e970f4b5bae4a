"""What processes of a server map and share: answers as without it, and memory that a second process does not double."""

import datetime as dt
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import processes, storage
from tritower.errors import ArtifactError
from tritower.serving import bundle, resident
from tritower.serving.messages import Answer, Question
from tritower.serving.ranking import Ranking

from tests.support import enlarged

CHILD = """
import sys
from tests.bench.serving_size import memory_of, opened_parts
parts = opened_parts(sys.argv[1])
first = next(parts)  # the recogniser: it grows with the companies
before = memory_of()
held = list(parts)
now = memory_of()
print(now | {"Private_Dirty": now["Private_Dirty"] - before["Private_Dirty"]}, flush=True)
sys.stdin.read(1)
print(memory_of(), flush=True)
"""


def without(folder: Path, to: Path) -> Path:
    """The same bundle as one that has no such part."""
    shutil.copytree(folder, to, ignore=lambda place, names: [resident.PART] if Path(place) == folder else [])
    bundle.write(to)
    return to


def bits(answer: Answer) -> list[tuple[str, float, tuple[float, ...]]]:
    """Of an answer what must be the same; NaN is not equal to itself."""
    return [(job.job_id, job.score, tuple(map(repr, job.features or ()))) for job in answer.jobs]


def questions(folder: Path, ts: int) -> list[Question]:
    """Of people with a past and without, with candidates and without."""
    users = [*pq.read_table(folder / "state" / "clicks.parquet")["user_id"].to_pylist()[:4], "nobody"]
    some = tuple(pq.read_table(folder / "dataset" / "jobs.parquet")["job_id"].to_pylist()[::3])
    return [
        Question(query=query, user_id=user, candidates=candidates, k=15, ts=ts, with_features=True)
        for user in users
        for query, candidates in (("nurse", some), ("Night Cook!", None), ("", some), ("a word never typed", None))
    ]


def test_answers_are_those_of_a_bundle_without_it_to_the_bit(bundle_folder: Path, tmp_path: Path) -> None:
    plain = without(bundle_folder, tmp_path / "plain")
    before = bundle.part_hash(bundle_folder / resident.PART)
    mapped, own = Ranking.open(bundle_folder), Ranking.open(plain)
    last = mapped._features.last_ts
    assert last is not None
    jobs = pq.read_table(bundle_folder / "dataset" / "jobs.parquet").slice(0, 6)
    rows = [
        {
            "request_id": f"new{n}", "job_id": job_id, "ts": last + 1_000_000 * n, "user_id": f"u{n % 3}",
            "query": f"words {n % 5}", "clicked": n % 2 == 0, "position": n + 1,
        }
        for n, job_id in enumerate([*jobs["job_id"].to_pylist(), "never-met"])
    ]  # fmt: skip
    advert = {"job_id": "an-advert", "title": "Night Cook of the Moon", "company": "Far Away Ltd", "posted_at": moment(last)}
    changed = {**advert, "job_id": jobs["job_id"][0].as_py(), "title": "Another Title"}
    adverts = pa.Table.from_pylist([advert, changed])
    for step in range(3):
        for question in questions(bundle_folder, last + 60_000_000 * (step + 1)):
            assert bits(mapped.answer(question)) == bits(own.answer(question)), (step, question.query)
        for ranking in (mapped, own):
            if step == 0:
                ranking.observe(pa.Table.from_pylist(rows))
            else:
                ranking.update(adverts)
    for ranking in (mapped, own):
        assert ranking.answer(replace(questions(bundle_folder, last)[0], candidates=("an-advert",))).jobs
    assert bundle.part_hash(bundle_folder / resident.PART) == before, "what a process counts stays its own"


def moment(us: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=us)


def test_one_that_was_made_of_another_state_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_folder, tmp_path / "copy")
    place = tmp_path / "copy" / "state" / "searches.parquet"
    pq.write_table(pq.read_table(place).slice(1), place)
    (tmp_path / "copy" / "state" / storage.MARK).unlink(missing_ok=True)
    bundle.write(tmp_path / "copy")
    with pytest.raises(ArtifactError, match="'resident' was made of another 'state'"):
        Ranking.open(tmp_path / "copy")


def test_one_of_another_version_is_passed_over(bundle_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_folder, tmp_path / "copy")
    about = tmp_path / "copy" / resident.PART / "resident.json"
    about.write_text(json.dumps(storage.read_json(about) | {"version": 99}))
    assert resident.found(bundle.write(tmp_path / "copy")) is None


@pytest.mark.slow
def test_a_second_process_shares_what_grows_with_the_jobs(bundle_folder: Path, tmp_path: Path) -> None:
    jobs = 40_000
    enlarged.write(bundle_folder, tmp_path / "large", jobs)
    plain = without(tmp_path / "large", tmp_path / "plain")
    command = [sys.executable, "-c", CHILD]

    def own(place: Path, of: Path) -> tuple[int, dict[str, int]]:
        """What a process has of its own, and what it says once a second one has the same open."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with processes.started([*command, str(place)], **pipes) as one, processes.started([*command, str(of)], **pipes) as two:
            first, _ = (json.loads(line(process).replace("'", '"')) for process in (one, two))
            one.popen.stdin.write(b"x")
            one.popen.stdin.flush()
            again = json.loads(line(one).replace("'", '"'))
            return first["Private_Dirty"], again

    small, _ = own(bundle_folder, bundle_folder)
    mapped, beside = own(tmp_path / "large", tmp_path / "large")
    alone, _ = own(plain, bundle_folder)
    assert (mapped - small) / jobs < 300, "own memory for each further job, in bytes"
    assert (alone - small) / jobs > 700, "and without the part"
    towers = (tmp_path / "large" / "resident" / "features" / "counters.npy").stat().st_size
    assert beside["Shared_Clean"] - beside["Private_Clean"] > towers / 2


def line(process: processes.Process) -> str:
    assert process.popen.stdout is not None
    return process.popen.stdout.readline().decode()
