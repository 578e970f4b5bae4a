"""`clean` and `champion`: real folders and a real S3 store, from the command line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tritower import storage
from tritower.champion import kept, pointer
from tritower.errors import ConfigError

from pipelines import cleaning
from pipelines.__main__ import main
from tests.support.s3 import client

DAY_S = 86_400.0
LOCAL = [f"artifacts/training-2026-01-0{day}-03-30-00-000000" for day in range(1, 8)]
BACKEND = [f"v2/artifacts/batch/0000000{day}-aaaa-bbbb-cccc-0123456789ab" for day in range(1, 8)]
FOREIGN = ["artifacts/notes/training.txt", "training/old/file", "v2/artifacts/batch/latest/file", "v2/artifacts/other/x/y",
           "artifacts/training-2026-01-01/file", "a/checkpoints/b/c", "checkpoints/alone"]  # fmt: skip


def made(root: Path, folders: list[str], first_day: int = 1) -> None:
    """A run a day, the last one a day ago."""
    for number, folder in enumerate(folders):
        file = root / folder / "ranker" / "ranker_model" / "weights"
        file.parent.mkdir(parents=True)
        file.write_text("x" * 100)
        (file.parent / storage.MARK).write_text("{}")
        when = time.time() - DAY_S * (len(folders) - number + first_day - 1)
        os.utime(file, (when, when))
        os.utime(file.parent / storage.MARK, (when, when))


def foreign(root: Path) -> None:
    for name in FOREIGN:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("not ours")
        os.utime(root / name, (0, 0))


def names(root: str, champion: str, *runs: str, previous: str = "") -> None:
    """A pointer: model and encoder of the first run, the state of the second."""

    def of(run: str, version: int) -> pointer.Champion:
        place = f"{root}/{run}/ranker"
        return pointer.Champion(version=version, ranker_model=f"{place}/ranker_model", encoder=f"{place}/encoder")

    state = pointer.State(location=f"{root}/{runs[1]}/features/state", reaches_to_us=1) if len(runs) > 1 else None
    before = of(previous, 1) if previous else None
    wanted = pointer.Pointer(champion=of(runs[0], 2), previous=before, state=state)
    kept.move(champion, lambda now: pointer.Move(wanted, ""))


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def folders(planned: list[cleaning.Left]) -> dict[str, str]:
    return {one.folder: one.kept_for for one in planned}


def test_what_goes_and_why_the_rest_stays(tmp_path: Path) -> None:
    made(tmp_path, LOCAL)
    made(tmp_path, BACKEND)
    made(tmp_path, ["checkpoints/abc", "checkpoints/def"], first_day=3)
    foreign(tmp_path)
    root = str(tmp_path)
    names(root, f"{root}/chain", LOCAL[0], BACKEND[1], previous=LOCAL[2])
    roots = cleaning.pointers(root)
    assert roots == [f"{root}/chain"]
    found = folders(cleaning.plan(root, older_s=3.5 * DAY_S, keep=2, named=cleaning.in_use(roots)))
    where = f"({root}/chain/champion.json)"
    assert {folder: why for folder, why in found.items() if why not in ("", "young")} == {
        LOCAL[0]: f"named by the champion, version 2 {where}",
        LOCAL[2]: f"named by the champion before, version 1 {where}",
        BACKEND[1]: f"named by the state {where}",
    }
    assert {folder for folder, why in found.items() if not why} == {
        LOCAL[1], LOCAL[3], BACKEND[0], BACKEND[2], BACKEND[3], "checkpoints/abc"
    }  # fmt: skip
    counted = folders(cleaning.plan(root, older_s=DAY_S, keep=5, now_s=time.time() + 99 * DAY_S))
    assert {folder for folder, why in counted.items() if not why} == {
        *LOCAL[:2],
        *BACKEND[:2],
        "checkpoints/abc",
        "checkpoints/def",
    }
    assert counted[LOCAL[2]] == "one of the newest 5"


def test_it_says_first_and_does_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, LOCAL)
    foreign(tmp_path)
    names(str(tmp_path), f"{tmp_path}/chain", LOCAL[0])
    before = files(tmp_path)
    call = ["clean", "--root", str(tmp_path), "--older", "2d", "--keep", "1"]
    assert main(call) == 0
    said = capsys.readouterr().out
    assert f"{LOCAL[1]}  goes" in said and "5 of 7 folders go, 510 B" in said and "Nothing was removed" in said
    assert files(tmp_path) == before
    assert main([*call, "--yes"]) == 0
    left = {name for name in before if not any(name.startswith(gone) for gone in LOCAL[1:6])}
    assert files(tmp_path) == left
    assert main([*call, "--yes"]) == 0
    assert files(tmp_path) == left


def test_in_a_store(s3: str, tmp_path: Path, endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, [*BACKEND[:3], LOCAL[0].removeprefix("artifacts/")])
    foreign(tmp_path)
    storage.upload_tree(tmp_path, s3)
    storage.upload_tree(tmp_path / BACKEND[0], f"{s3}-2/{BACKEND[0]}")
    names(s3.replace("s3://", "minio://"), f"{s3}-pointers", BACKEND[0])
    planned = cleaning.plan(s3, older_s=DAY_S, keep=1, named=cleaning.in_use([f"{s3}-pointers"]), now_s=time.time() + 2 * DAY_S)
    assert folders(planned)[BACKEND[0]].startswith("named by the champion, version 2")
    (going,) = [one for one in planned if not one.kept_for]
    cleaning.remove(s3, going)
    there = {
        one["Key"].removeprefix(f"{s3[12:]}/")
        for one in client(endpoint).list_objects_v2(Bucket="bucket", Prefix=f"{s3[12:]}/")["Contents"]
    }
    assert there == {name for name in files(tmp_path) if not name.startswith(going.folder)}
    assert storage.list_files(f"{s3}-2/{BACKEND[0]}")
    assert main(["clean", "--root", s3, "--champion", f"{s3}-pointers"]) == 0
    assert "0 of 3 folders go" in capsys.readouterr().out


def test_no_pointer_is_said_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, LOCAL)
    call = ["clean", "--root", str(tmp_path), "--older", "2d", "--keep", "1", "--yes"]
    assert main(call) == 1
    assert "a model in use could be removed" in capsys.readouterr().err
    assert main([*call, "--champion", str(tmp_path / "elsewhere")]) == 1
    assert "there is no pointer" in capsys.readouterr().err
    (tmp_path / "champion.json").write_text("{")
    assert main(call) == 1
    assert "the pointer cannot be read" in capsys.readouterr().err
    assert len(list(tmp_path.glob("artifacts/*"))) == 7
    (tmp_path / "champion.json").unlink()
    assert main([*call, "--no-champion"]) == 0
    assert len(list(tmp_path.glob("artifacts/*"))) == 1


@pytest.mark.parametrize(("option", "value"), [("--older", "30"), ("--older", "0d"), ("--older", "5h"), ("--keep", "0")])
def test_numbers_out_of_range(option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, LOCAL)
    assert main(["clean", "--root", str(tmp_path), "--no-champion", "--yes", option, value]) == 1
    assert option in capsys.readouterr().err
    assert len(list(tmp_path.glob("artifacts/*"))) == 7


def test_what_a_link_leads_to_is_not_below_the_root(tmp_path: Path) -> None:
    made(tmp_path / "else", LOCAL[:1], first_day=90)
    (tmp_path / "root" / "artifacts").mkdir(parents=True)
    (tmp_path / "root" / LOCAL[0]).symlink_to(tmp_path / "else" / LOCAL[0])
    made(tmp_path / "root", LOCAL[1:3], first_day=80)
    (tmp_path / "root" / LOCAL[1] / "link").symlink_to(tmp_path / "else" / LOCAL[0])
    assert main(["clean", "--root", str(tmp_path / "root"), "--keep", "1", "--no-champion", "--yes"]) == 0
    assert not (tmp_path / "root" / LOCAL[1]).exists()
    assert files(tmp_path / "else") != set()


def test_results_of_a_run_that_stays_keep_the_run_that_made_them(tmp_path: Path) -> None:
    made(tmp_path, LOCAL)
    for run in (LOCAL[1], LOCAL[0], LOCAL[2]):
        cleaning.noted(tmp_path, "training", [f"{tmp_path}/{run}/ranker/ranker_model"])
    named = cleaning.results(tmp_path, keep=2)
    found = folders(cleaning.plan(str(tmp_path), older_s=DAY_S, keep=1, named=named))
    assert [folder for folder, why in found.items() if why.startswith("named by the results of the run of ")] == [
        LOCAL[0],
        LOCAL[2],
    ]


_REMOVES = """
import shutil, sys, time
from pipelines import cleaning
original = shutil.os.rmdir
def slow(*arguments, **more):
    print("removing", flush=True)
    time.sleep(600)
shutil.os.rmdir = slow
cleaning.remove(sys.argv[1], cleaning.Left(kind="training", folder=sys.argv[2], files=1, bytes=1, newest_s=0.0))
"""


def test_killed_on_the_way_the_next_call_goes_on(tmp_path: Path) -> None:
    made(tmp_path, LOCAL, first_day=60)
    command = [sys.executable, "-c", _REMOVES, str(tmp_path), LOCAL[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / LOCAL[0]).exists(), "gone for its readers"
    assert [path.name for path in (tmp_path / "artifacts").glob(".*")] == [f".{Path(LOCAL[0]).name}.removed"]
    (tmp_path / "artifacts" / ".else.removed").mkdir()
    assert main(["clean", "--root", str(tmp_path), "--no-champion", "--yes"]) == 0
    assert sorted(path.name for path in (tmp_path / "artifacts").iterdir()) == [
        ".else.removed",
        *(Path(run).name for run in LOCAL[2:]),
    ]


def test_a_champion_is_named_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("model", "encoder", "state"):
        with storage.atomic_directory(tmp_path / name) as folder:
            storage.write_json(folder / "state.json", {"last_ts": 3_600_000_000})
    root = str(tmp_path / "chain")
    assert main(["champion", root]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "champion: none",
        "the one before: none",
        "state: none, the next run starts from nothing",
    ]
    call = ["champion", root, "--set-model", str(tmp_path / "model"), "--set-encoder", str(tmp_path / "encoder")]
    assert main(call) == 0
    assert main([*call, "--set-state", str(tmp_path / "state")]) == 0
    said = capsys.readouterr().out
    assert "champion: version 1, promoted 20" in said and "state: reaches to 1970-01-01T01:00:00Z, run by hand" in said
    found = kept.read(root)
    assert found.champion and found.champion.version == 1 and found.state and found.state.location == str(tmp_path / "state")
    for wrong, text in (
        (["--set-model", "m"], "a champion is a model with its encoder"),
        (["--set-model", str(tmp_path / "none"), "--set-encoder", str(tmp_path / "encoder")], "nothing is there"),
        ([*call[2:], "--set-state", root], "this is no state"),
    ):
        assert main(["champion", root, *wrong]) == 1
        assert text in capsys.readouterr().err
    assert kept.read(root) == found


def test_times() -> None:
    assert (cleaning.seconds("30d"), cleaning.seconds("2w")) == (30 * DAY_S, 14 * DAY_S)
    with pytest.raises(ConfigError, match="is no time"):
        cleaning.seconds("1.5d")
