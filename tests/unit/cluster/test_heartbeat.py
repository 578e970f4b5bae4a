"""Who follows a job says so in the run's store, and nothing of it is left or taken for data."""

import time
from pathlib import Path

import pytest
from tritower import storage
from tritower.cluster import heartbeat
from tritower.cluster.heartbeat import Heartbeat, Silence
from tritower.errors import LaunchError, StorageError

from tests.support.family import wait_for
from tests.support.s3 import bare, client, endpoint, s3  # noqa: F401 - fixtures


def put(place: str, text: str) -> None:
    with storage.atomic_file(Path("beat")) as file:
        file.write_text(text)
    storage.upload("beat", f"{place}/heartbeat")


def test_it_is_compared_with_itself_and_not_with_a_clock(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A launcher with another clock is heard, one that says nothing is not; a store that is away counts for neither."""
    place = f"{s3}/.x.launch"
    silence = Silence(place)
    with Heartbeat(place, 0.1):
        monkeypatch.setattr(time, "time", lambda: 0.0)
        for _ in range(3):
            wait_for(lambda: time.sleep(0.2) or silence.seconds() < 0.2, "a beat is heard")
    silence.seconds()
    time.sleep(0.3)
    silent_s = silence.seconds()
    assert silent_s >= 0.3
    monkeypatch.setenv("TRITOWER_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("TRITOWER_S3_RETRIES", "0")
    assert silence.seconds() < silent_s  # anew


def test_one_that_was_removed_is_silence_too(s3: str) -> None:  # noqa: F811
    """Whoever cleans up after a launcher that died must not keep its job alive."""
    silence = Silence(f"{s3}/.x.launch")
    silence.seconds()
    time.sleep(0.2)
    assert silence.seconds() >= 0.2


@pytest.mark.parametrize("remote", [True, False], ids=["store", "disk"])
def test_nothing_is_left_and_nothing_is_taken_for_data(s3: str, tmp_path: Path, remote: bool) -> None:  # noqa: F811
    root = s3 if remote else str(tmp_path)
    place = heartbeat.home({"model": f"{root}/model/", "scores": f"{root}/scores"})
    assert place == f"{root}/.model.launch"
    with Heartbeat(place, 0.1):
        heartbeat.mark(place)
        assert heartbeat.marked(place)
        with pytest.raises(StorageError, match="nothing is there"):
            storage.list_files(root)
        if remote:  # a backend's launcher asks for all that begins with the artifact's name
            assert not client_names(f"{s3}/model")
        heartbeat.clear(place)
    assert not heartbeat.marked(place)
    assert not (storage.names(place) if remote else list((tmp_path / ".model.launch").iterdir()))


def client_names(prefix: str) -> list[str]:
    import os

    bucket, _, key = prefix.removeprefix("s3://").partition("/")
    found = client(os.environ["TRITOWER_S3_ENDPOINT"]).list_objects_v2(Bucket=bucket, Prefix=key)
    return [one["Key"] for one in found.get("Contents", [])]


def test_the_launcher_that_began_last_counts(s3: str) -> None:  # noqa: F811
    """A node that was lost comes back with a launcher whose job another one has followed since."""
    place = f"{s3}/.x.launch"
    with Heartbeat(place, 0.1) as first:
        first.check()
        with Heartbeat(place, 0.1) as second:
            wait_for(lambda: first.superseded, "the first one steps back")
            with pytest.raises(LaunchError, match="another launcher follows this job"):
                first.check()
            time.sleep(0.5)
            second.check()
            first.__exit__()
            assert storage.read_small(f"{place}/heartbeat")  # the second one's is left alone
    assert not storage.names(place)


def test_of_two_that_began_at_once_exactly_one_goes_on(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    place = f"{s3}/.x.launch"
    with Heartbeat(place, 0.1) as one:
        put(place, f"1 {'0' * 32} 7")
        time.sleep(0.5)
        one.check()
        # Its own beat may come after one of the other's, which beats on.
        wait_for(lambda: put(place, f"1 {'g' * 32} 7") or one.superseded, "it steps back")


def test_it_goes_on_after_the_store_was_away(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    place, there = f"{s3}/.x.launch", storage.read_small
    with Heartbeat(place, 0.05) as beat:
        with monkeypatch.context() as away:
            away.setenv("TRITOWER_S3_ENDPOINT", "http://127.0.0.1:9")
            away.setenv("TRITOWER_S3_RETRIES", "0")
            time.sleep(0.5)
        first = there(f"{place}/heartbeat")
        wait_for(lambda: there(f"{place}/heartbeat") != first, "another beat")
        beat.check()
