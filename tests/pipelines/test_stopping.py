"""A run that is stopped or whose step fails in a bad way: what is left running, and what the reader gets."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.__main__ import main
from tests.support import family, stoppable

RUN = """
import sys
from pathlib import Path
from pipelines import local, top

pipeline, root, deed, folder = sys.argv[1:]

def run():
    outcome = local.run(Path(pipeline), {"deed": deed, "folder": folder}, root=Path(root))
    print(*(f"{step.name} {step.status}" for step in outcome.steps), sep="\\n")
    return 0

sys.exit(top.run(run))
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stoppable.compiled(tmp_path_factory.mktemp("stoppable"))


def start(pipeline: Path, folder: Path, deed: str, marked: dict[str, str], *before: str) -> "subprocess.Popen[str]":
    """The run of a pipeline in a process of its own, as a command line starts it."""
    command = [*before, sys.executable, "-c", RUN, str(pipeline), str(folder / "root"), deed, str(folder)]
    own = {"TMPDIR": str(folder)}  # a killed process leaves its temporary files
    return subprocess.Popen(command, env=os.environ | marked | own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def fails(pipeline: Path, folder: Path, deed: str) -> str:
    """The one line that a run says which fails."""
    out, told = start(pipeline, folder, deed, {}).communicate(timeout=300)
    assert out == "" and re.fullmatch(r"\n[^\n]+\n", told), told
    return told.strip()


def pid(file: Path) -> int:
    family.wait_for(lambda: file.exists() and file.read_text(), f"{file.name} is there")
    return int(file.read_text())


@pytest.mark.parametrize(
    ("number", "deed", "status", "by"),
    [(signal.SIGTERM, "train", 143, "SIGTERM"), (signal.SIGINT, "sleep", 130, "Ctrl-C"), (signal.SIGKILL, "train", -9, "")],
    ids=["SIGTERM", "Ctrl-C", "SIGKILL"],
)
def test_a_stopped_run_leaves_nobody(
    pipeline: Path, tmp_path: Path, number: signal.Signals, deed: str, status: int, by: str
) -> None:
    marked = family.mark()
    run = start(pipeline, tmp_path, deed, marked)
    step = pid(tmp_path / "step")
    if deed == "train":
        assert {step, pid(tmp_path / "here-0"), pid(tmp_path / "here-1")} < set(family.members(marked))
    run.send_signal(number)
    assert run.wait(300) == status
    family.assert_gone(marked)
    told = run.communicate()[1]
    if by:
        again = "Run it again to go on: the finished steps come from the cache."
        assert told == f"\nStopped by {by}. The step act was ended. {again}\n"


def test_after_a_stop_the_finished_steps_come_from_the_cache(pipeline: Path, tmp_path: Path) -> None:
    marked = family.mark()
    run = start(pipeline, tmp_path, "sleep", marked)
    pid(tmp_path / "step")
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=300)
    out, told = start(pipeline, tmp_path, "end", marked).communicate(timeout=300)
    assert (out, told) == ("first cached\nact done\n", "")


def test_a_run_under_nohup_stays(pipeline: Path, tmp_path: Path) -> None:
    run = start(pipeline, tmp_path, "sleep", family.mark(), "nohup")
    pid(tmp_path / "step")
    run.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert run.poll() is None
    run.terminate()
    assert run.wait(300) == 143


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_step_that_is_ended_takes_its_training_along(pipeline: Path, tmp_path: Path, number: signal.Signals) -> None:
    marked = family.mark()
    run = start(pipeline, tmp_path, "train", marked)
    assert {pid(tmp_path / "here-0"), pid(tmp_path / "here-1")} < set(family.members(marked))
    os.kill(pid(tmp_path / "step"), number)
    _, told = run.communicate(timeout=300)
    assert run.returncode == 1
    assert ("was killed (SIGKILL)" if number == signal.SIGKILL else "was ended by SIGTERM") in told
    family.assert_gone(marked)


def test_an_error_of_a_worker_comes_through_torchrun_and_the_step(pipeline: Path, tmp_path: Path) -> None:
    log = tmp_path / "root/logs/act.log"
    said = r"act: DataError: row 7 says 'a\nFakeError: nothing is wrong' (in x.csv). Mend it."
    assert fails(pipeline, tmp_path, "refuse") == f"{said} The step's log is {log}."
    assert "ChildFailedError" in log.read_text()  # torchrun's words are there for whom it may help


def test_no_value_and_no_log_line_can_forge_the_message(pipeline: Path, tmp_path: Path) -> None:
    told = fails(pipeline, tmp_path, "forge")
    assert told.startswith(r"act: DataError: the title is 'nurse\nFakeError: nothing is wrong' (in row 7). Mend it. The step's")


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("break", r"act: StepError: unexpected KeyError: 'nobody thought of it' \(in .*, line \d+\)\. This is a fault"),
        ("die", r"act: StepError: the process was killed \(SIGKILL\)\. If nobody did it, memory ran out: give it more\."),
        ("read", r"act: StorageError: there is no such file or folder \(in /.*/not/there\.csv\)\. Check"),
        ("dive", r"act: DataError: something that was given is nested too deep \(in .*\)\. Look at"),
    ],
)
def test_a_step_that_fails_in_a_bad_way_says_one_line(pipeline: Path, tmp_path: Path, deed: str, words: str) -> None:
    told = fails(pipeline, tmp_path, deed)
    assert re.match(words, told), told
    assert told.endswith(f"The step's log is {tmp_path}/root/logs/act.log.")


def mount(folder: Path, *options: str) -> None:
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", *options, "test", folder]).returncode:
        pytest.skip("this user may not mount a file system")


def test_a_full_disk_while_a_folder_is_copied(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    for name in ("a", "b"):
        (tmp_path / "from" / name).write_bytes(b"x" * 300_000)
    mount(tmp_path / "full", "-o", "size=100k")
    try:
        told = fails(pipeline, tmp_path, "copy")
        left = list((tmp_path / "full").iterdir())
    finally:
        subprocess.run(["umount", tmp_path / "full"], check=True)
    assert told.startswith("act: StorageError: the disk is full (in ") and "Free space or write elsewhere." in told
    assert not left


DATA = ["--jobs=jobs.csv", "--impressions=impressions.csv"]


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `python -m pipelines` says on standard error, and nothing else, when it fails."""

    def run(*arguments: str) -> str:
        assert main(arguments) == 1
        told = capsys.readouterr().err
        assert re.fullmatch(r"\n[^\n]+\n", told), told
        return told.strip()

    return run


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with two tables."""
    monkeypatch.chdir(tmp_path)
    for name in ("jobs.csv", "impressions.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    return tmp_path


def test_a_root_that_cannot_be_is_refused_at_once(files: Path, says: Callable[..., str]) -> None:
    (files / "taken").write_text("")
    for root, words in (("taken", "something else is in its place"), ("taken/run", "a file is in the place of a folder")):
        assert words in says("run", "--local", *DATA, f"--root={root}")
    mount(files / "readonly", "-o", "ro")
    try:
        told = says("run", "--local", *DATA, "--root=readonly/run")
    finally:
        subprocess.run(["umount", files / "readonly"], check=True)
    assert told.startswith("the file system can only be read (in ") and "readonly/run" in told


def test_a_preset_that_cannot_be_read_says_why(files: Path, says: Callable[..., str]) -> None:
    (files / "latin.toml").write_bytes(b"[ranker]\n# caf\xe9\nepochs = 1\n")
    (files / "deep.toml").write_text("[ranker]\nx = " + "[" * 20_000)
    (files / "flat.toml").write_text("ranker = 3\n")
    (files / "folder.toml").mkdir()
    for preset, words in (
        ("latin.toml", "the preset is not UTF-8: line 2 has the byte 0xe9 (in latin.toml). Save it as UTF-8."),
        ("deep.toml", "the preset is nested too deep (in deep.toml)"),
        ("flat.toml", "'ranker' is not a table of knobs (in flat.toml)"),
        ("folder.toml", "a folder is in the place of a file (in folder.toml)"),
    ):
        assert says("run", "--local", *DATA, f"--preset={preset}").startswith(words)
    told = says("run", "--local", *DATA, "--set", f"ranker.head={'[' * 20_000}")
    assert told.startswith("the text is nested too deep (in ranker.network.head)")


def test_what_nobody_thought_of_is_one_line_and_its_traceback_is_kept(tmp_path: Path) -> None:
    text = "import sys\nfrom pipelines import top\nsys.exit(top.run(lambda: {}['x']))"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    found = re.fullmatch(r"\nunexpected KeyError: 'x' .*Its traceback is in (\S+)\.\n", done.stderr)
    assert found and "KeyError: 'x'" in Path(found[1]).read_text() and Path(found[1]).parent == tmp_path


def test_a_reader_that_goes_away_is_no_error() -> None:
    text = "import sys\nfrom pipelines import top\nsys.exit(top.run(lambda: print('x' * 1_000_000) or 0))"
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        done.stdout.close()
        assert done.wait(300) == 141 and done.stderr.read() == b""
