"""Local places: what is written is whole or absent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tritower import storage
from tritower.errors import StorageError


def test_a_directory_appears_only_when_whole(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with pytest.raises(KeyError), storage.atomic_directory(final) as folder:
        (folder / "half").write_text("x")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with storage.atomic_directory(final) as folder:
        (folder / "whole").write_text("1")
    with pytest.raises(KeyError), storage.atomic_directory(final) as folder:
        raise KeyError
    assert [file.name for file in final.glob("[!.]*")] == ["whole"]
    with storage.atomic_directory(final) as folder:
        (folder / "newer").write_text("2")
    assert [file.name for file in final.glob("[!.]*")] == ["newer"]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    final = tmp_path / "thesis"
    final.mkdir()
    with storage.atomic_directory(final) as folder:  # empty: nothing to lose
        (folder / "ours").write_text("1")
    with storage.atomic_directory(final) as folder:  # a step that runs again
        (folder / "ours").write_text("2")
    assert (final / "ours").read_text() == "2"
    (final / storage.MARK).unlink()
    with pytest.raises(StorageError, match=r"files that tritower did not write \(in .*thesis\)\. Name another place"):
        storage.atomic_directory(final).__enter__()
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(StorageError, match="a file in the folder's place"):
        storage.fetch_tree(final, tmp_path / "note.txt")
    assert (final / "ours").read_text() == "2" and (tmp_path / "note.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note.txt", "thesis"]


def test_files_that_came_meanwhile_are_left_alone(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with pytest.raises(StorageError, match="did not write"), storage.atomic_directory(final) as folder:
        (folder / "ours").write_text("1")
        final.mkdir()
        (final / "theirs").write_text("2")
    assert [path.name for path in final.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_appears_only_when_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        storage.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    storage.write_json(tmp_path / "deep" / "a.json", {"x": [1, "é"]})
    assert storage.read_json(tmp_path / "deep" / "a.json") == {"x": [1, "é"]}


def test_reading_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        storage.read_json(tmp_path / "none.json")
    with pytest.raises(StorageError, match="nothing is there"):
        storage.list_files(tmp_path / "none")
    with pytest.raises(StorageError, match="nothing is there"):
        storage.fetch_tree(tmp_path / "none", tmp_path / "copy")
    with pytest.raises(StorageError, match="no Parquet"):
        storage.parquet_parts(tmp_path)
    with pytest.raises(StorageError, match="unknown scheme 'ftp'"):
        storage.filesystem("ftp://host/x")
    assert list(tmp_path.iterdir()) == []


def test_a_full_device_is_named(tmp_path: Path) -> None:
    # Opened, never given to a library by name: some remove a file that they failed to write, even a device.
    with (
        pytest.raises(StorageError, match="disk is full"),
        storage.atomic_directory(tmp_path / "out"),
        open("/dev/full", "wb", buffering=0) as device,
    ):
        device.write(b"x")
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_a_file_is_named(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from tritower import errors, storage\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    storage.write_json(sys.argv[1], 'x' * 10_000)\n"
        "except errors.StorageError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "big.json")], capture_output=True, text=True, check=False)
    assert "disk is full" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_may_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        storage.write_json("/sys/tritower.json", 1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="something else is in its place"):
        storage.write_json(tmp_path / "file" / "below.json", 1)


def test_hidden_files_are_not_data(tmp_path: Path) -> None:
    for name in ("a.csv", "_SUCCESS", ".crc", "_temporary/b.csv", "day=1/c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert storage.list_files(tmp_path) == [f"{tmp_path}/a.csv", f"{tmp_path}/day=1/c.csv"]
    assert storage.list_files(f"file://{tmp_path}") == [f"file://{tmp_path}/a.csv", f"file://{tmp_path}/day=1/c.csv"]
    assert os.fspath(storage.local_path(f"file://{tmp_path}/a.csv")) == f"{tmp_path}/a.csv"


def test_a_file_that_many_links_lead_to_is_listed_once(tmp_path: Path) -> None:
    """Two folders that link to each other and to themselves have 2^n names for a file n links deep."""
    names = ("top/a.csv", "top/deep/b.csv", "other/c.csv", ".hidden/d.csv")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    top = tmp_path / "top"
    links = {"self": ".", "deep/up": "../..", "deep/self": ".", "out": "../other", "again.csv": "a.csv", "lost": "nowhere"}
    for link, target in links.items():
        (top / link).symlink_to(target)
    (tmp_path / "other" / "back").symlink_to(top)
    assert storage.list_files(top) == [f"{top}/{name}" for name in ("a.csv", "deep/b.csv", "out/c.csv")]
    assert storage.list_files(tmp_path) == [f"{tmp_path}/{name}" for name in ("other/c.csv", "top/a.csv", "top/deep/b.csv")]
    (tmp_path / "way").symlink_to(top)
    assert storage.list_files(tmp_path / "way")[0] == f"{tmp_path}/way/a.csv"


def test_local_trees_are_copied(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "x").write_text("1")
    storage.fetch_tree(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "sub" / "x").read_text() == "1"
    assert storage.upload_tree(tmp_path / "in", f"file://{tmp_path}/up") == 1
    assert (tmp_path / "up" / "sub" / "x").read_text() == "1"


def test_a_tree_that_links_to_itself_is_not_copied(tmp_path: Path) -> None:
    """Neither directly, nor by way of a folder that links back."""
    for folder in ("in/sub", "other"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "other" / "back").symlink_to(tmp_path / "in")
    for target in (tmp_path / "in", tmp_path / "other"):
        (tmp_path / "in" / "sub" / "up").unlink(missing_ok=True)
        (tmp_path / "in" / "sub" / "up").symlink_to(target)
        with pytest.raises(StorageError, match=r"leads in a circle \(in .*sub/up.*\)"):
            storage.fetch_tree(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
