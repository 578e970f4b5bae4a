"""The steps with real files: here and in a real S3 store."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from kfp.dsl import Dataset, Metrics, Model
from tritower import storage
from tritower.champion import kept, pointer, step
from tritower.champion.component import fetch, record, resolve
from tritower.errors import ArtifactError, ConfigError

HOUR_US = 3_600_000_000


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{tmp_path}/chain" if request.param == "local" else f"{request.getfixturevalue('s3')}/chain"


def folder(path: Path, **files: object) -> Path:
    with storage.atomic_directory(path) as made:
        for name, value in files.items():
            storage.write_json(made / f"{name}.json", value)
    return path


def left(run: Path, hour: int = 1) -> dict[str, Dataset | Model]:
    """What a training leaves."""
    return {
        "ranker_model": Model(uri=str(folder(run / "ranker_model", weights=[hour]))),
        "encoder": Model(uri=str(folder(run / "encoder", hash="h"))),
        "state": Dataset(uri=str(folder(run / "state", state={"last_ts": hour * HOUR_US}))),
    }


def test_a_training_passes_and_days_follow(root: str, tmp_path: Path) -> None:
    made = left(tmp_path / "t")
    metrics = Metrics(metadata={"auc": 0.75})
    said = record.python_func(**made, champion=root, gate="pass", metrics=metrics, run="t", data_version="v1")
    assert said == "promoted: champion version 1"
    found = kept.read(root)
    assert found.champion and found.champion.at.endswith("Z")
    assert (found.champion.run, found.champion.auc, found.champion.data_version) == ("t", 0.75, "v1")
    assert found.state and found.state.reaches_to == "1970-01-01T01:00:00Z"

    resolved = resolve.python_func(champion=root)
    assert tuple(resolved) == (made["ranker_model"].uri, made["encoder"].uri, made["state"].uri, 1)
    copies = {"ranker_model": Model(uri=str(tmp_path / "copy/model")), "encoder": Model(uri=str(tmp_path / "copy/encoder"))}
    fetch.python_func(ranker_model_at=resolved.ranker_model, encoder_at=resolved.encoder, **copies)
    assert storage.read_json(tmp_path / "copy/model/weights.json") == [1]
    assert storage.read_json(tmp_path / "copy/encoder/hash.json") == "h"

    day = left(tmp_path / "day", hour=25)["state"]
    assert record.python_func(state=day, champion=root, version=1, run="day") == "the state reaches to 1970-01-02T01:00:00Z"
    assert resolve.python_func(champion=root).state == day.uri
    assert resolve.python_func(champion=root, state="s3://else/state").state == "s3://else/state", "to fill in an old day"
    assert record.python_func(state=day, champion=root, version=1, run="day") == "this state is recorded already"


def test_a_refused_model_is_never_named(root: str, tmp_path: Path) -> None:
    assert record.python_func(**left(tmp_path / "a"), champion=root, gate="hold") == "the gate holds: the champion stays"
    assert kept.read(root) == pointer.Pointer()
    record.python_func(**left(tmp_path / "b"), champion=root, gate="pass")
    before = storage.read_small(kept.file(root))
    record.python_func(**left(tmp_path / "c", hour=99), champion=root, gate="hold", version=1)
    assert storage.read_small(kept.file(root)) == before


@pytest.mark.parametrize("part", ["ranker_model", "encoder", "state"])
@pytest.mark.parametrize("damage", ["cut", "gone", "without a manifest"])
def test_what_is_not_whole_is_never_named(part: str, damage: str, tmp_path: Path) -> None:
    made = left(tmp_path / "a")
    place = Path(made[part].path)
    file = next(place.glob("*.json"))
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-2])
    else:
        (file if damage == "gone" else place / storage.MARK).unlink()
    with pytest.raises((ArtifactError, FileNotFoundError)) as raised:
        record.python_func(**made, champion=str(tmp_path / "chain"), gate="pass")
    assert isinstance(raised.value, ArtifactError) and str(place) in str(raised.value)
    assert not (tmp_path / "chain").exists()


def test_locations_by_hand_need_no_pointer(tmp_path: Path) -> None:
    assert tuple(step.resolve(root="", ranker_model="m", encoder="e", state="s")) == ("m", "e", "s", 0)
    for wrong, text in (
        ({"root": ""}, "no model is given"),
        ({"root": "", "ranker_model": "m"}, "a model without its encoder"),
        ({"root": "", "encoder": "e"}, "an encoder without its model"),
        ({"root": "r", "ranker_model": "m", "encoder": "e"}, "by hand and by the pointer"),
    ):
        with pytest.raises(ConfigError, match=text):
            step.resolve(**wrong)
    with pytest.raises(ArtifactError, match=r"no champion yet .*champion set"):
        step.resolve(root=str(tmp_path))
    made = left(tmp_path / "a")
    assert record.python_func(state=made["state"]) == "no pointer is kept: nothing moves"
    with pytest.raises(ConfigError, match="the gate says 'Pass'"):
        record.python_func(**made, champion=str(tmp_path), gate="Pass")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "cannot be read"),
        (b'{"format": 1, "champ', "cannot be read"),
        (b"[]", "it is no mapping"),
        (b'{"format": 2, "other": 1}', "its format is 2, this version of tritower reads 1"),
        (b'{"format": 1, "campion": {}}', "unknown knob 'campion'"),
        (b'{"format": 1, "champion": {"version": 1, "encoder": "e"}}', "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_damaged_pointer_is_one_clear_error(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "champion.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=problem) as raised:
        step.resolve(root=str(tmp_path))
    assert str(tmp_path / "champion.json") in str(raised.value) and "champion set" in str(raised.value)
    with pytest.raises(ArtifactError):
        record.python_func(**left(tmp_path / "a"), champion=str(tmp_path), gate="pass")
    assert (tmp_path / "champion.json").read_bytes() == content


def test_where_an_artifact_was_fetched_from_is_what_is_recorded(tmp_path: Path) -> None:
    made = left(tmp_path / "a")
    for name, artifact in made.items():
        artifact.metadata["location"] = f"s3://bucket/{name}"
    record.python_func(**made, champion=str(tmp_path), gate="pass")
    found = kept.read(str(tmp_path))
    assert found.champion and found.state
    places = (found.champion.ranker_model, found.champion.encoder, found.state.location)
    assert places == ("s3://bucket/ranker_model", "s3://bucket/encoder", "s3://bucket/state")


def test_two_trainings_end_at_one_time(root: str, tmp_path: Path) -> None:
    """Both were compared with version 1: one is promoted, whichever it is."""
    record.python_func(**left(tmp_path / "a"), champion=root, gate="pass", run="a")
    said = dict[str, str]()

    def end(name: str) -> None:
        said[name] = record.python_func(**left(tmp_path / name, hour=9), champion=root, gate="pass", version=1, run=name)

    threads = [threading.Thread(target=end, args=(name,)) for name in ("b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = kept.read(root).champion
    assert found and found.version == 2
    loser = {"b": "c", "c": "b"}[found.run]
    assert said[found.run] == "promoted: champion version 2" and "nothing moves" in said[loser]


_RECORDS = """
import sys
from tritower.champion import kept, pointer
number = 0
while True:
    number += 1
    new = pointer.Champion(version=1, ranker_model=f"{number}-" + "m" * 50_000, encoder=f"{number}-" + "e" * 50_000)
    kept.move(sys.argv[1], lambda now: pointer.promoted(now, new, None))
    print(number, flush=True)
"""


def test_killed_while_it_moves_the_pointer_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    last = 0
    for wait in range(6):
        with subprocess.Popen([sys.executable, "-c", _RECORDS, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            for _ in range(wait + 1):
                writer.stdout.readline()
            os.kill(writer.pid, signal.SIGKILL)
        found = kept.read(str(tmp_path)).champion
        assert found and found.ranker_model.split("-")[0] == found.encoder.split("-")[0]
        assert found.version > last
        last = found.version
    assert json.loads((tmp_path / "champion.json").read_text())["previous"]["version"] == last - 1
