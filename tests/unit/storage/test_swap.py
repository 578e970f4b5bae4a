"""One small file that several processes replace: on this machine, in a real S3 store behind a proxy that does faults, and in a
store that speaks Google's API."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tritower import storage
from tritower.errors import StorageError

from tests.support.faults import Fault, Proxy, proxy


@pytest.fixture(params=["local", "s3", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "gs":
        request.getfixturevalue("gcs")
        return "gs://bucket/a folder/file.json"
    return f"{tmp_path}/new/file.json" if request.param == "local" else f"{request.getfixturevalue('s3')}/file.json"


@pytest.fixture
def between(s3: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The proxy, with the environment pointing to it."""
    with proxy(endpoint) as state:
        monkeypatch.setenv("TRITOWER_S3_ENDPOINT", state.url)
        monkeypatch.setenv("TRITOWER_S3_TIMEOUT_S", "1")
        monkeypatch.setenv("TRITOWER_S3_RETRIES", "2")
        yield state


def test_it_is_replaced_by_whoever_knows_what_it_was(place: str) -> None:
    assert storage.read_small(place) is None
    assert storage.swap_small(place, b"1")
    first = storage.read_small(place)
    assert first and first[0] == b"1"
    assert not storage.swap_small(place, b"2"), "there is a file already"
    assert storage.swap_small(place, b"3", tag=first[1])
    assert not storage.swap_small(place, b"4", tag=first[1]), "it was replaced meanwhile"
    last = storage.read_small(place)
    assert last and last[0] == b"3"


def test_of_many_writers_each_sees_what_the_others_did(place: str) -> None:
    """Each adds one until it was the one who did: no addition is lost."""
    storage.swap_small(place, b"0")

    def add(_: int) -> None:
        while True:
            found = storage.read_small(place)
            assert found
            if storage.swap_small(place, str(int(found[0]) + 1).encode(), tag=found[1]):
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))
    assert (storage.read_small(place) or (b"", ""))[0] == b"12"


@pytest.mark.parametrize(
    "fault", [Fault("status"), Fault("drop"), Fault("cut"), Fault("stall", seconds=1.5)], ids=lambda f: f.kind
)
def test_a_read_outlives_a_passing_fault(fault: Fault, s3: str, between: Proxy) -> None:
    assert storage.swap_small(f"{s3}/file.json", b"whole")
    between.faults.append(fault)
    assert (storage.read_small(f"{s3}/file.json") or (b"", ""))[0] == b"whole"
    assert fault.times == 0


def test_a_put_whose_answer_is_lost_was_made_by_us_or_another(s3: str, between: Proxy) -> None:
    """The second try of a PUT that arrived is refused: only the content tells whose it is."""
    between.faults.append(Fault("lost", method="PUT"))
    assert not storage.swap_small(f"{s3}/file.json", b"ours")
    assert (storage.read_small(f"{s3}/file.json") or (b"", ""))[0] == b"ours"


def test_a_store_without_conditions_gets_a_plain_put(s3: str, between: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    between.faults.append(Fault("status", method="PUT", status=501))
    assert storage.swap_small(f"{s3}/file.json", b"1")
    assert "no conditional PUT" in caplog.text
    assert (storage.read_small(f"{s3}/file.json") or (b"", ""))[0] == b"1"


def test_a_store_that_fails_and_a_bucket_that_is_not_there(s3: str, between: Proxy) -> None:
    with pytest.raises(StorageError, match="bucket does not exist"):
        storage.swap_small("s3://nowhere/file.json", b"1")
    between.faults.append(Fault("status", method="PUT", times=9))
    with pytest.raises(StorageError, match="the store failed"):
        storage.swap_small(f"{s3}/file.json", b"1")


_WRITER = """
import sys
from tritower import storage
letter = 0
while True:
    found = storage.read_small(sys.argv[1])
    letter = 1 - letter
    storage.swap_small(sys.argv[1], b"ab"[letter:letter + 1] * 200_000, tag=found[1] if found else "")
    print("written", flush=True)
"""


def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    place = tmp_path / "file.json"
    for wait in range(8):
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(place)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            for _ in range(wait + 1):
                writer.stdout.readline()
            os.kill(writer.pid, signal.SIGKILL)
        content = place.read_bytes()
        assert content in (b"a" * 200_000, b"b" * 200_000)
    assert storage.swap_small(place, b"c", tag=(storage.read_small(place) or (b"", ""))[1])
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]
