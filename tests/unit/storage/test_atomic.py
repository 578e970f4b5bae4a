"""Several writers, readers beside them, and writers that are killed: real processes on one folder."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tritower import storage
from tritower.errors import ArtifactError, StorageError
from tritower.storage import atomic, manifest

WRITER = """
import sys, time
from tritower import storage
place, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(rounds):
    with storage.atomic_directory(place) as folder:
        for part in range(5):
            (folder / f"{part}").write_text(f"{name} {number}")
"""
HANGS = """
import sys, time
from tritower import storage
with storage.atomic_directory(sys.argv[1]) as folder:
    (folder / "half").write_text("x")
    print("writing", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def content(folder: Path) -> set[str]:
    """What the five files of a folder say, read through one handle, so that all of them are of one folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        found = set()
        for part in range(5):
            file = os.open(f"{part}", os.O_RDONLY, dir_fd=handle)
            found.add(os.read(file, 100).decode())
            os.close(file)
        return found
    finally:
        os.close(handle)


def test_writers_race_and_readers_always_see_a_whole_folder(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with storage.atomic_directory(place) as folder:
        for part in range(5):
            (folder / f"{part}").write_text("first")
    reads = 0
    with process(WRITER, str(place), "a", "150") as one, process(WRITER, str(place), "b", "150") as other:
        while one.poll() is None or other.poll() is None:
            # The name is never without a folder, whatever happens to the one that was opened.
            assert place.is_dir()
            with contextlib.suppress(FileNotFoundError):  # replaced and removed while it was read
                assert len(content(place)) == 1
                reads += 1
        assert (one.returncode, other.returncode) == (0, 0)
    assert reads > 50
    assert content(place) <= {"a 149", "b 149"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    manifest.check(place)


def test_checked_readers_never_see_a_mixture(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with storage.atomic_directory(place) as folder:
        for part in range(5):
            (folder / f"{part}").write_text("first")
    with process(WRITER, str(place), "a", "100") as writer:
        while writer.poll() is None:
            said = manifest.whole(place, lambda here: {(here / f"{part}").read_text() for part in range(5)})
            assert len(said) == 1
        assert writer.returncode == 0


def test_a_folder_that_is_replaced_while_it_is_read_is_read_from_the_start(tmp_path: Path) -> None:
    """Whatever the reader makes of the remains."""
    place, read = tmp_path / "place", list[str]()

    def put(word: str) -> None:
        with storage.atomic_directory(place) as new:
            (new / "word").write_text(word)

    def reader(here: Path) -> str:
        read.append((here / "word").read_text())
        if len(read) < 3:
            put(f"word {len(read)}")
            raise KeyError("half of it is gone")
        return read[-1]

    put("word 0")
    assert manifest.unmoved(place, reader) == "word 2"
    with pytest.raises(KeyError):
        manifest.unmoved(place, lambda here: {}[str(here)])


@pytest.mark.parametrize("by_link", [True, False])
def test_a_folder_that_was_away_while_it_was_read_is_read_from_the_start(tmp_path: Path, by_link: bool) -> None:
    """Another one took its place and gave it back: at the end the name means the folder that it meant at the beginning."""
    place, read = tmp_path / "place", list[list[str]]()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        for part in ("first", "second"):
            (tmp_path / name / part).write_text(name)

    def put(name: str) -> None:
        if by_link:
            (tmp_path / "next").symlink_to(tmp_path / name)
            (tmp_path / "next").replace(place)
        else:
            if place.exists():
                place.rename(tmp_path / (place / "first").read_text())
            (tmp_path / name).rename(place)

    def reader(here: Path) -> list[str]:
        read.append([(here / "first").read_text()])
        if len(read) == 1:
            put("other")
        read[-1].append((here / "second").read_text())
        if len(read) == 1:
            put("one")
        return read[-1]

    put("one")
    assert manifest.unmoved(place, reader) == ["one", "one"]
    assert read[0] == ["one", "other"]


def test_a_folder_that_is_written_into_while_it_is_read_is_read_once(tmp_path: Path) -> None:
    read = list[Path]()

    def reader(here: Path) -> str:
        read.append(here)
        (here / f"{len(read)}").write_text("a file of the reader's own")
        return "read"

    assert manifest.unmoved(tmp_path, reader) == "read" and len(read) == 1


def test_a_checked_folder_is_trusted_and_no_other_one(tmp_path: Path) -> None:
    for name in ("checked/part", "other"):
        with storage.atomic_directory(tmp_path / name) as new:
            (new / "word").write_text("as it was")
        (tmp_path / name / "word").write_text("otherwise")
    with manifest.trusted(tmp_path / "checked"):
        assert manifest.whole(tmp_path / "checked" / "part", lambda here: (here / "word").read_text()) == "otherwise"
        with pytest.raises(ArtifactError):
            manifest.check(tmp_path / "other")
    with pytest.raises(ArtifactError):
        manifest.check(tmp_path / "checked" / "part")


def test_a_system_that_cannot_exchange_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_renameat2", None)  # as in macOS and older libraries
    for text in ("old", "new"):
        with storage.atomic_directory(tmp_path / "out") as folder:
            (folder / "x").write_text(text)
    assert (tmp_path / "out" / "x").read_text() == "new"
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    atomic.swap(tmp_path / "one", tmp_path / "two")
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["2", "1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "out", "two"]


def test_what_a_killed_writer_left_is_removed_by_the_next_and_a_living_ones_is_not(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with storage.atomic_directory(place) as folder:
        (folder / "old").write_text("1")
    with process(HANGS, str(place)) as dead, process(HANGS, str(place)) as alive:
        for child in (dead, alive):
            assert child.stdout is not None and child.stdout.readline() == "writing\n"
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert (place / "old").read_text() == "1" and len(list(tmp_path.glob(".out.*.partial"))) == 2
        with storage.atomic_directory(place) as folder:
            (folder / "new").write_text("2")
        (left,) = tmp_path.glob(".out.*.partial")
        assert (left / "half").read_text() == "x"
    storage.write_json(tmp_path / "out.json", 1)  # another name: not its business
    assert left.exists()
    with storage.atomic_directory(place):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.json"]


def test_a_folder_for_one_process(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tritower import storage\n"
        "with storage.exclusive(Path(sys.argv[1]), 'test'):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    place = tmp_path / "shards"
    with process(code, str(place)) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=r"another process is at work on it \(test\) \(in .*shards\)\. Wait"):
            storage.exclusive(place, "test").__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with storage.exclusive(place, "test") as mine:
            assert mine.is_dir()


def test_every_file_gets_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with storage.atomic_directory(tmp_path / "out") as folder:
            (folder / "sub").mkdir(mode=0o700)
            (folder / "sub" / "private").touch(mode=0o600)
            (folder / "plain").touch()
        with storage.atomic_file(tmp_path / "file") as temporary:
            temporary.touch(mode=0o600)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"out": 0o750, "sub": 0o750, "private": 0o640, "plain": 0o640, ".tritower": 0o640, "file": 0o640}


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk/real")
    (tmp_path / "file").symlink_to("disk/file")
    for text in ("1", "2"):
        with storage.atomic_directory(tmp_path / "out") as folder:
            (folder / "x").write_text(text)
        storage.write_json(tmp_path / "file", text)
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk" / "real" / "x").read_text() == "2"
    assert (tmp_path / "file").is_symlink() and storage.read_json(tmp_path / "disk" / "file") == "2"
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["file", "real"]


def test_a_users_file_in_our_folder_is_not_replaced(tmp_path: Path) -> None:
    with storage.atomic_directory(tmp_path / "out") as folder:
        (folder / "ours").write_text("1")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"tritower did not write \(notes\.txt\)"):
        storage.atomic_directory(tmp_path / "out").__enter__()
    assert sorted(path.name for path in tmp_path.rglob("[!.]*")) == ["notes.txt", "ours", "out"]


def test_long_names_have_room(tmp_path: Path) -> None:
    for name in ("x" * 255, "ü" * 127):
        with storage.atomic_directory(tmp_path / name) as folder:
            (folder / "a").touch()
        storage.write_json(tmp_path / f"{name[:-1]}", 1) if name[0] == "x" else None
        assert (tmp_path / name / "a").exists()


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_manifest_names_what_is_wrong(tmp_path: Path, size: int) -> None:
    def fresh() -> Path:
        with storage.atomic_directory(tmp_path / "out") as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "data").write_bytes(b"\x07" * size)
            (folder / "other").write_text("x")
        return tmp_path / "out"

    data = fresh() / "sub" / "data"
    manifest.check(tmp_path / "out")
    if size:
        with data.open("r+b") as file:
            file.seek(size // 2)
            file.write(b"\x06")
        with pytest.raises(ArtifactError, match=r"not those that were written \(in .*out/sub/data\)\. Restore"):
            manifest.check(tmp_path / "out")
        os.truncate(data, size - 1)
        with pytest.raises(ArtifactError, match=rf"has {size - 1:,} bytes, {size:,} were written \(in .*out/sub/data\)"):
            manifest.check(tmp_path / "out")
    data.unlink()
    with pytest.raises(ArtifactError, match=r"missing \(in .*out/sub/data\)"):
        manifest.check(tmp_path / "out")
    fresh()
    (tmp_path / "out" / "sub" / "part-2").write_text("x")
    with pytest.raises(ArtifactError, match=r"none of the folder's own \(in .*out/sub/part-2\)\. Remove"):
        manifest.check(tmp_path / "out")
    (tmp_path / "out" / "sub" / "part-2").unlink()
    (tmp_path / "out" / ".DS_Store").touch()
    manifest.check(tmp_path / "out")


@pytest.mark.parametrize("text", ["{", "[]", '{"tritower": 2, "files": {}}', '{"tritower": 1, "files": {"x": 3}}', "\ud800"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    with storage.atomic_directory(tmp_path / "out") as folder:
        (folder / "x").touch()
    (tmp_path / "out" / storage.MARK).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ArtifactError, match=r"\.tritower\)\. Restore"):
        manifest.check(tmp_path / "out")


def test_a_folder_of_an_earlier_version_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / storage.MARK).touch()
    (tmp_path / "out" / "x").write_text("1")
    manifest.check(tmp_path / "out", tmp_path / "none")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/out has no manifest (.tritower): its files are read unchecked"
    ]
    with storage.atomic_directory(tmp_path / "out") as folder:  # and may be replaced
        (folder / "y").touch()


def test_a_manifest_goes_with_a_copy_and_is_checked_there(s3: str, tmp_path: Path) -> None:
    with storage.atomic_directory(tmp_path / "out") as folder:
        (folder / "x").write_text("one")
    assert storage.upload_tree(tmp_path / "out", s3) == 1
    storage.fetch_tree(s3, tmp_path / "back")
    assert manifest.read(tmp_path / "back") == manifest.read(tmp_path / "out")
    store, place = storage.filesystem(f"{s3}/x")
    with store.open_output_stream(place) as stream:
        stream.write(b"two")
    with pytest.raises(ArtifactError, match=rf"bytes are not those that were written \(in {s3}/x\)"):
        storage.fetch_tree(s3, tmp_path / "again")
    (tmp_path / "out" / "x").write_text("two")
    with pytest.raises(ArtifactError, match=r"not those that were written \(in .*out/x\)"):
        storage.fetch_tree(tmp_path / "out", tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["back", "out"]


def test_a_reader_without_permission_is_told_so() -> None:
    code = (
        "import os, sys\nfrom tritower import errors, storage\nfrom tritower.storage import manifest\n"
        "if os.getuid() == 0:\n    os.setuid(65534)\n"
        "for act in (lambda: manifest.check(sys.argv[1]), lambda: storage.read_json(sys.argv[1] + '/x')):\n"
        "    try:\n        act()\n    except errors.StorageError as error:\n        print(error)\n"
    )
    # Another user's way into pytest's own folders is closed.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        with storage.atomic_directory(f"{place}/out") as folder:
            (folder / "x").write_text("1")
        os.chmod(f"{place}/out/x", 0)
        done = subprocess.run([sys.executable, "-c", code, f"{place}/out"], capture_output=True, text=True, check=False)
        assert done.stdout.count(f"this user may not read it (in {place}/out/x). Ask its owner") == 2, done.stderr
        os.chmod(f"{place}/out", 0)
        done = subprocess.run([sys.executable, "-c", code, f"{place}/out"], capture_output=True, text=True, check=False)
        assert f"this user may not read it (in {place}/out). Ask its owner" in done.stdout, done.stderr
        os.chmod(f"{place}/out", 0o755)


def test_an_input_that_may_not_be_read_is_not_the_output(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"the place cannot be opened \(in /proc/1/none\)"),
        storage.atomic_directory(tmp_path / "out"),
    ):
        raise PermissionError(13, "Permission denied", "/proc/1/none")


def test_time_that_a_check_takes(tmp_path: Path) -> None:
    """Sizes alone beyond the limit: 64 GiB of holes take no time."""
    with storage.atomic_directory(tmp_path / "out") as folder:
        (folder / "small").write_text("1")
    known = manifest.read(tmp_path / "out")
    assert known is not None
    (tmp_path / "out" / "large").touch()
    os.truncate(tmp_path / "out" / "large", 64 << 30)
    entry = {"bytes": 64 << 30, "sha256": "not computed"}
    storage.write_json(tmp_path / "out" / storage.MARK, {"tritower": 1, "files": known | {"large": entry}})
    start = time.process_time()
    manifest.check(tmp_path / "out")
    assert time.process_time() - start < 5
    (tmp_path / "out" / "small").write_text("2")
    with pytest.raises(ArtifactError, match="small"):
        manifest.check(tmp_path / "out")
