"""The cache of local runs: what is taken from it, what is not, and what is said; real runs, real kills, a real store."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tritower import storage
from tritower.errors import StepError

from pipelines import cache, local
from pipelines.version import data_version
from tests.support import chain

STEPS = ("first", "second", "third")
ALL = [("first", "cached"), ("second", "cached"), ("third", "cached")]
NONE = [("first", "done"), ("second", "done"), ("third", "done")]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chain.compiled(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Arguments of a run: a folder of data, a folder of a model."""
    for place, name, text in (("data", "a.csv", "abc"), ("model", "weights", "w1")):
        (tmp_path / place).mkdir()
        (tmp_path / place / name).write_text(text)
    return {"place": str(tmp_path / "data"), "model": str(tmp_path / "model"), "config": {"word": "x"}}


@pytest.fixture
def again(pipeline: Path, given: dict[str, Any], tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    def run(use_cache: bool = True, **changes: Any) -> list[tuple[str, str]]:
        outcome = local.run(pipeline, given | changes, root=tmp_path / "root", use_cache=use_cache)
        run.text = Path(*outcome.outputs.values()).read_text()  # type: ignore[attr-defined]
        return [(step.name, step.status) for step in outcome.steps if step.name in STEPS]

    return run


Run = Callable[..., list[tuple[str, str]]]


def warnings(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("Warning: ")]


def artifact(root: Path, name: str) -> Path:
    (found,) = root.glob(f"root/artifacts/*/{name}")
    return found


def test_what_the_key_holds(again: Run, given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert again() == NONE
    assert again() == ALL
    # An imported folder whose content was replaced: the step that reads it, no other.
    (tmp_path / "model" / "weights").write_text("w2")
    assert again() == [("first", "cached"), ("second", "cached"), ("third", "done")]
    assert again.text == "abcxw2"  # type: ignore[attr-defined]
    # A folder that a knob names.
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "x").write_text("1")
    knob = {"config": {"word": str(tmp_path / "tuned")}}
    assert again(**knob)[0] == ("first", "done")
    assert again(**knob) == ALL
    (tmp_path / "tuned" / "x").write_text("2")
    assert again(**knob)[0] == ("first", "done")
    # A folder in which a step keeps something is no input.
    kept = {"config": {"cache": str(tmp_path / "kept")}}
    assert again(**kept)[0] == ("first", "done")
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert again(**kept) == ALL
    # The parameter that names data, without a data version.
    (tmp_path / "data" / "b.csv").write_text("more")
    assert again() == NONE and again.text == "abcmorexw2"  # type: ignore[attr-defined]
    assert warnings(capsys) == []


def test_the_key_sees_what_the_reader_sees(again: Run, tmp_path: Path) -> None:
    """A folder reached by a link, links to files, other endings; hidden files are not read."""
    data = tmp_path / "data"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "part.csv").write_text("1")
    (tmp_path / "outside.csv").write_text("2")
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    (data / "link.csv").symlink_to(tmp_path / "outside.csv")
    (data / "other.TXT").write_text("3")
    assert again() == NONE and again.text == "abc213xw1"  # type: ignore[attr-defined]
    before = data_version(str(data))
    for place, text in (("elsewhere/part.csv", "4"), ("outside.csv", "5"), ("data/other.TXT", "6")):
        (tmp_path / place).write_text(text)
        assert data_version(str(data)) != before
        before = data_version(str(data))
        assert again() == NONE
    assert again.text == "abc546xw1"  # type: ignore[attr-defined]
    (data / ".hidden.csv").write_text("7")
    (data / "_SUCCESS").write_text("8")
    assert data_version(str(data)) == before
    assert again() == ALL


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lambda folder: (folder / "all").write_text("abcy"), "altered"),
        (lambda folder: (folder / "sub" / "more").unlink(), "gone"),
        (shutil.rmtree, "gone"),
        (lambda folder: (folder / "part-2").touch(), "added"),
    ],
)
def test_an_artifact_that_is_not_what_the_step_wrote(
    harm: Callable[[Path], Any], what: str, again: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again()
    harm(artifact(tmp_path, "first/made"))
    assert again() == NONE
    (line,) = warnings(capsys)
    assert line.startswith(f"Warning: first is not taken from the cache: {tmp_path}/root/artifacts/") and line.endswith(what)
    assert again() == ALL
    assert again.text == "abcxw1" and warnings(capsys) == []  # type: ignore[attr-defined]


def test_a_byte_flipped_behind_the_clock(again: Run, tmp_path: Path) -> None:
    """Same size, same time of modification."""
    again()
    file = artifact(tmp_path, "second/again") / "all"
    before = file.stat()
    file.write_text("abcy")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert again() == [("first", "cached"), ("second", "done"), ("third", "done")]


def test_a_touched_artifact_is_still_whole(again: Run, tmp_path: Path) -> None:
    again()
    (artifact(tmp_path, "first/made") / "all").touch()
    shutil.copytree(artifact(tmp_path, "second"), tmp_path / "copy")
    shutil.rmtree(artifact(tmp_path, "second"))
    shutil.copytree(tmp_path / "copy", tmp_path.joinpath(*artifact(tmp_path, "first").parts[:-1], "second"))
    assert again() == ALL


def test_a_torn_entry_is_a_miss(again: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again()
    (entry,) = [path for path in tmp_path.glob("root/cache/*.json") if json.loads(path.read_text())["component"] == "second"]
    whole = entry.read_text()
    changed = whole.replace("again", "other")
    store = cache.StepCache(tmp_path / "root" / "cache", str(tmp_path / "root" / "artifacts"), {})
    assert store.get(entry.stem) is not None
    torn = [
        "",
        "{",
        "[]",
        "null",
        '{"digest": 1}',
        "\x00" * 100,
        '{"digest":"x","files":{"a":3}}',
        whole[:-9],
        changed,
        "\udcff",
    ]
    for text in torn:
        entry.write_bytes(text.encode(errors="surrogateescape"))
        assert store.get(entry.stem) is None
        (line,) = warnings(capsys)
        assert f"{entry.stem[:12]} is not taken from the cache: the entry {entry} is damaged (" in line
    entry.unlink()
    entry.mkdir()
    assert store.get(entry.stem) is None and len(warnings(capsys)) == 1
    entry.rmdir()
    entry.write_text("{")
    assert again(use_cache=False) == NONE
    assert warnings(capsys) == []
    assert again() == [("first", "cached"), ("second", "done"), ("third", "done")]
    assert len(warnings(capsys)) == 1
    assert again() == ALL


@contextlib.contextmanager
def process(pipeline: Path, root: Path, given: dict[str, Any], hangs_in: str = "") -> Iterator[subprocess.Popen[str]]:
    """A run in a process group of its own, killed at the end."""
    command = [sys.executable, "-m", "tests.support.chain", str(pipeline), str(root), json.dumps(given)]
    environment = os.environ | {"CHAIN_HANGS_IN": hangs_in}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as child:
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def until(child: subprocess.Popen[str], log: Path, word: str = "hanging") -> None:
    """Wait until the step says that it hangs."""
    while not (log.exists() and word in log.read_text()):
        assert child.poll() is None
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.05)


def test_a_kill_costs_the_step_that_was_running(pipeline: Path, again: Run, given: dict[str, Any], tmp_path: Path) -> None:
    for number, name in enumerate(STEPS):
        with process(pipeline, tmp_path / "root", given, hangs_in=name) as child:
            until(child, tmp_path / "root" / "logs" / f"{name}.log")
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            assert child.stdout is not None
            said = [line for line in child.stdout.read().splitlines() if not line.startswith("importer")]
        # All but the step that was killed, which comes now.
        anew = [f"{step} {status}" for step in STEPS[:number][-1:] for status in ("running", "done")]
        assert said == [f"{step} cached" for step in STEPS[:number][:-1]] + anew + [f"{name} running"]
        (tmp_path / "root" / "logs" / f"{name}.log").unlink()
    assert again() == [("first", "cached"), ("second", "cached"), ("third", "done")]
    assert not list((tmp_path / "root" / "cache").glob(".*"))


def test_a_run_beside_another_one_costs_it_nothing(pipeline: Path, again: Run, given: dict[str, Any], tmp_path: Path) -> None:
    with process(pipeline, tmp_path / "root", given, hangs_in="third") as child:
        until(child, tmp_path / "root" / "logs" / "third.log")
        # Another input, so that every step runs, and the very same one.
        assert again(config={"word": "other"}) == NONE
        assert (tmp_path / "root" / "logs-2" / "first.log").exists()
        assert again() == [("first", "cached"), ("second", "cached"), ("third", "done")]
        assert "hanging" in (tmp_path / "root" / "logs" / "third.log").read_text()
    assert again() == ALL
    assert again(config={"word": "other"}) == ALL


@pytest.mark.slow
def test_a_store_that_does_not_answer_costs_no_entry(
    pipeline: Path,
    given: dict[str, Any],
    s3: str,
    endpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run() -> list[tuple[str, str]]:
        outcome = local.run(pipeline, given, root=tmp_path / "root", store=s3)
        return [(step.name, step.status) for step in outcome.steps if step.name in STEPS]

    monkeypatch.setenv("TRITOWER_S3_RETRIES", "0")
    assert run() == NONE
    # The manifest of a folder goes with it.
    store, _ = storage.filesystem(s3)
    (entry,) = [
        one for path in tmp_path.glob("root/cache/*.json") if (one := json.loads(path.read_text()))["component"] == "first"
    ]
    place = entry["outputs"]["made"]["uri"].removeprefix("s3://")
    with store.open_input_stream(f"{place}/.tritower") as stream:
        assert set(json.loads(stream.read())["files"]) == {"all", "sub/more"}
    monkeypatch.setenv("TRITOWER_S3_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StepError, match="the store does not answer"):
        run()
    assert "first is not taken from the cache: the store does not answer" in warnings(capsys)[0]
    monkeypatch.setenv("TRITOWER_S3_ENDPOINT", endpoint)
    assert run() == ALL
    store.delete_file(f"{place}/sub/more")
    assert run() == NONE
    assert f"s3://{place}/sub/more is not what the step wrote" in warnings(capsys)[0]


def test_nothing_is_left_among_the_temporary_files(
    pipeline: Path, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    with process(pipeline, tmp_path / "root", given, hangs_in="second") as child:
        until(child, tmp_path / "root" / "logs" / "second.log")
    assert len(list((tmp_path / "tmp").iterdir())) == 1  # of the killed one
    with process(pipeline, tmp_path / "root", given) as child:
        assert child.wait() == 0
    assert list((tmp_path / "tmp").iterdir()) == []
