"""Jobs of one process and of two by the local launcher: real processes of the worker that says what it sees."""

from pathlib import Path

import pytest
from tritower import processes
from tritower.errors import ConfigError, DataError, StepError
from tritower.jobs import Job, Resources, open_launcher
from tritower.processes import Node

from tests.support import family

WORKER = "tests.support.worker"


def job(deed: str, folder: Path, **more: object) -> Job:
    return Job(name="small", module=WORKER, arguments=(deed, str(folder)), **more)


def test_a_module_is_told_its_locations() -> None:
    one = Job(name="a", module="b", arguments=("c",), inputs={"in": "s3://x/y"}, outputs={"out": "/z"})
    assert one.words() == ["c", "--in=s3://x/y", "--out=/z"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"nodes": 0}, "nodes is 0"),
        ({"processes": 0}, "processes is 0"),
        ({"inputs": {"a": "1"}, "outputs": {"a": "2"}}, r"outputs is \['a'\]"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Job(name="a", module="b", **wrong)
    with pytest.raises(ConfigError, match="gpus is -1"):
        Resources(gpus=-1)


def test_this_machine_is_one_node(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 nodes on one machine"):
        open_launcher("local").run(job("sleep", tmp_path, nodes=2))
    with pytest.raises(ConfigError, match="unknown launcher 'moon'"):
        open_launcher("moon")  # type: ignore[arg-type]


def test_who_looks_may_end_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = family.mark()
    monkeypatch.setenv(*next(iter(marked.items())))

    def look() -> None:
        if (tmp_path / "here-0").exists():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        open_launcher().run(job("sleep", tmp_path), look=look)
    family.assert_gone(marked)


def test_a_killed_process_leaves_its_log_and_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with pytest.raises(StepError, match=r"the process was killed \(SIGKILL\)"):
        open_launcher().run(job("litter", tmp_path), log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "littered\n"
    assert (tmp_path / "here-0").exists() and not list((tmp_path / "tmp").iterdir())


def test_a_process_alone_is_its_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    node = processes.met(rendezvous=None, failure=Exception)  # type: ignore[arg-type]
    assert node == Node(rank=0, world=1, local_rank=0, local_world=1, number=0)
    assert node.once("x", lambda: "made") == "made"
    with node.folder("kept") as folder:
        (folder / "file").touch()
    assert not folder.exists()


def test_nobody_waits_for_what_a_first_process_could_not_make(tmp_path: Path) -> None:
    """What it raises is the job's error; the other one, which would wait for ever, is ended with it."""
    with pytest.raises(DataError, match="nothing to share"):
        open_launcher().run(job("stumble", tmp_path, processes=2))
    assert (tmp_path / "here-1").exists()
