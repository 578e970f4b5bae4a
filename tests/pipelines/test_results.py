"""Results in a user's folder: what may be replaced, links, and failures that leave the old result whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tritower import storage
from tritower.errors import StorageError, TritowerError

from pipelines import results, running
from pipelines.__main__ import main

NAMES = ("metrics.json", "model")


def made(place: Path, text: str, size: int = 0) -> dict[str, str]:
    """Artifacts of a run: a file, and a folder with a manifest."""
    storage.write_json(place / "metrics", {"said": text})
    with storage.atomic_directory(place / "net") as folder:
        (folder / "weights").write_text(text + " " * size)
    return {"metrics.json": str(place / "metrics"), "model": str(place / "net")}


def said(out: Path) -> tuple[str, str]:
    """What file and folder say."""
    return storage.read_json(out / "metrics.json")["said"], (out / "model" / "weights").read_text()


def test_results_are_replaced_as_long_as_they_are_ours(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    for text in ("one", "two", "two"):
        results.check(out, NAMES)
        assert results.deliver(out, made(tmp_path / "run", text)) == [out / name for name in NAMES]
        assert said(out) == (text, text)
    with results.replaced(out, "metrics.json") as temporary:
        temporary.write_text('{"said": "changed by us"}')
    results.check(out, NAMES)
    assert sorted(path.name for path in out.iterdir()) == [results.NOTE, "metrics.json", "model"]


def test_a_users_own_files_are_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "metrics.json").write_text("mine")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"a file that tritower did not write.*out/metrics\.json\)\. Move it away"):
        results.check(out, NAMES)
    (out / "metrics.json").rename(out / "mine.json")
    (out / "model").mkdir()
    results.check(out, NAMES)  # an empty folder: nothing to lose
    (out / "model" / "weights").write_text("mine")
    with pytest.raises(StorageError, match=r"a folder that tritower did not write \(in .*out/model\)"):
        results.check(out, NAMES)
    (out / "model").rename(out / "mine")
    results.deliver(out, made(tmp_path / "run", "ours"))
    (out / "metrics.json").write_text("edited")
    with pytest.raises(StorageError, match=r"or that was changed since \(in .*metrics\.json\)"):
        results.check(out, NAMES)
    results_before = (out / "metrics.json").read_text()
    with pytest.raises(StorageError, match="changed since"):
        results.deliver(out, made(tmp_path / "run", "newer"))
    assert (out / "metrics.json").read_text() == results_before and (out / "model" / "weights").read_text() == "ours"
    (out / "metrics.json").unlink()
    (out / "model" / "notes.txt").write_text("mine")
    with pytest.raises(
        StorageError, match=r"changed since tritower wrote it: the file is none of the folder's own: .*notes\.txt"
    ):
        results.check(out, NAMES)
    assert [(out / name).read_text() for name in ("mine.json", "notes.txt", "mine/weights")] == ["mine"] * 3


def test_links(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    results.check(tmp_path / "out", NAMES)
    results.deliver(tmp_path / "out", made(tmp_path / "run", "one"))
    assert (tmp_path / "out").is_symlink() and said(tmp_path / "disk") == ("one", "one")
    (tmp_path / "disk" / "model").rename(tmp_path / "elsewhere")
    (tmp_path / "disk" / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"a symbolic link in the result's place \(in .*out/model\)"):
        results.check(tmp_path / "out", NAMES)
    (tmp_path / "nowhere").symlink_to("later/made")
    results.check(tmp_path / "nowhere", NAMES)
    assert (tmp_path / "later" / "made").is_dir()
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match=r"a file in the folder's place|a file is in the place of a folder"):
            results.check(place, NAMES)
    with pytest.raises(StorageError, match="on this machine"):
        results.check(Path("s3://bucket/out"), NAMES)


def test_a_failure_leaves_the_old_result_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    results.deliver(out, made(tmp_path / "run", "old"))
    before = {path: path.stat().st_ino for path in out.rglob("*")}
    new = made(tmp_path / "run", "new", size=100_000)
    with pytest.raises(TritowerError, match="nothing is there"):  # the second artifact is gone
        results.deliver(out, new | {"model": str(tmp_path / "none")})
    with pytest.raises(OSError):  # the second exchange fails
        results.deliver(out, new | {"no-such-folder/b": new["metrics.json"]})
    code = (
        "import json, resource, sys\nfrom pathlib import Path\nfrom pipelines import results\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "results.deliver(Path(sys.argv[1]), json.loads(sys.argv[2]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out), json.dumps(new)], capture_output=True, text=True, check=False)
    assert "StorageError: the disk is full" in done.stderr
    assert said(out) == ("old", "old")
    assert {path: path.stat().st_ino for path in out.rglob("*") if path.name != results.NOTE} == {
        path: number for path, number in before.items() if path.name != results.NOTE
    }
    results.check(out, NAMES)
    results.deliver(out, made(tmp_path / "run", "new"))
    assert said(out) == ("new", "new")


def test_it_is_looked_at_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("my thesis")
    (tmp_path / "data.csv").write_text("x\n")
    data = ["--jobs", str(tmp_path / "data.csv"), "--impressions", str(tmp_path / "data.csv")]
    places = ["--root", str(tmp_path / "root"), "--out", str(tmp_path / "out")]
    for command in (["run", "--local", *data, *places], ["demo", "--out", str(tmp_path / "out"), "--impressions", "100"]):
        assert main(command) == 1
        assert "there is a file that tritower did not write" in capsys.readouterr().err
    assert not (tmp_path / "root").exists() and os.listdir(tmp_path / "out") == ["report.html"]
    assert set(running.PLANS["training"].results.values()) >= {"report.html", "metrics.json"}
