"""Real processes: they go with their parent however it ends, and their errors come back as they were raised."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tritower import child, errors, jobs, processes
from tritower.errors import ConfigError, DataError, StepError, StorageError
from tritower.jobs import Job

from tests.support import family

WORKER = "tests.support.worker"
NO_NETWORK = ["unshare", "-n", "-u", "sh", "-c", 'ip link set lo up && hostname nowhere && exec "$@"', "sh"]


def torchrun(deed: str, folder: Path, count: int = 2) -> None:
    jobs.open_launcher().run(Job(name="two", module=WORKER, arguments=(deed, str(folder)), processes=count))


def script(text: str, *words: str, marked: dict[str, str], **more: object) -> "subprocess.Popen[str]":
    """A Python process that does what the text says; `words` are its arguments."""
    own = {"TMPDIR": words[0]}  # a killed process leaves its temporary files
    return subprocess.Popen([sys.executable, "-c", text, *words], env=os.environ | marked | own, text=True, **more)


def here(folder: Path, rank: int = 0) -> int:
    """The process id of a worker, when it has come."""
    file = folder / f"here-{rank}"
    family.wait_for(lambda: file.exists() and file.read_text(), f"worker {rank} has come")
    return int(file.read_text())


START_TWO = f"""
import sys
from tritower.jobs import Job, open_launcher
open_launcher().run(Job(name="two", module={WORKER!r}, arguments=("sleep", sys.argv[1]), processes=2))
"""


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_torchrun_and_its_workers_go_with_the_step(tmp_path: Path, number: signal.Signals) -> None:
    marked = family.mark()
    step = script(START_TWO, str(tmp_path), marked=marked)
    assert {here(tmp_path, 0), here(tmp_path, 1)} < set(family.members(marked))
    assert any("torch.distributed.run" in command for command in family.members(marked).values())
    step.send_signal(number)
    assert step.wait(300) == -number
    family.assert_gone(marked)


def test_a_chain_of_programs_goes_with_its_first(tmp_path: Path) -> None:
    """Python, a shell that gives way to Python, and a last one: the first is killed as hard as can be."""
    text = f"""
import sys
from tritower import processes
last = processes.module({WORKER!r}, "sleep", sys.argv[1])
inner = "from tritower import processes\\nwith processes.started(" + repr(last) + ") as one: one.popen.wait()"
with processes.started(processes.program("sh", "-c", 'exec "$@"', "sh", sys.executable, "-c", inner)) as one:
    one.popen.wait()
"""
    marked = family.mark()
    first = script(text, str(tmp_path), marked=marked)
    here(tmp_path)
    assert len(family.members(marked)) == 3
    first.kill()
    first.wait(300)
    family.assert_gone(marked)


def test_the_block_ends_what_runs_and_what_it_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 1.0)
    marked = family.mark()
    shell = ["sh", "-c", f"trap '' TERM; sleep 600 & touch {tmp_path}/ready; wait; sleep 600"]  # deaf to SIGTERM
    with pytest.raises(ZeroDivisionError), processes.started(shell, environment=marked):
        family.wait_for((tmp_path / "ready").exists, "the shell is ready")
        start = time.monotonic()
        raise ZeroDivisionError
    assert processes.GRACE_S <= time.monotonic() - start < 60  # and not the ten minutes that it would sleep
    family.assert_gone(marked)


def test_a_worker_s_error_comes_back_as_it_was_raised(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError) as caught:
        torchrun("refuse", tmp_path)
    # One line, although the value has two.
    assert str(caught.value) == r"row 7 says 'a\nFakeError: nothing is wrong' (in x.csv). Mend it."
    assert type(caught.value) is DataError
    assert "Traceback" in capfd.readouterr().err  # the log has the rest


def test_a_killed_worker_is_the_reason_not_what_the_others_say_of_it(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"the process was killed \(SIGKILL\)\. If nobody did it, memory ran out"):
        torchrun("die", tmp_path)


def test_an_error_that_nobody_thought_of_names_class_and_place(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"^unexpected KeyError: 'nobody thought of it' \(in .*worker\.py, line \d+\)"):
        torchrun("break", tmp_path)


def test_every_kind_of_error_keeps_its_class(tmp_path: Path) -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    for number, kind in enumerate(kinds):
        folder = tmp_path / str(number)
        folder.mkdir()
        os.environ[child.REPORTS] = str(folder)
        try:
            child.report(kind("a", where="b", remedy="C."))
        finally:
            del os.environ[child.REPORTS]
        told = processes.told(folder)
        assert type(told) is kind and (told.problem, told.where, told.remedy) == ("a", "b", "C.")


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        ("FileNotFoundError(2, 'x', 'jobs.csv')", StorageError, "there is no such file or folder (in jobs.csv)"),
        ("PermissionError(13, 'x', 'jobs.csv')", StorageError, "the place cannot be opened (in jobs.csv)"),
        ("OSError(28, 'x', '/full/part')", StorageError, "the disk is full (in /full/part)"),
        ("MemoryError('12 GiB')", StepError, "memory ran out (MemoryError: 12 GiB)"),
        ("RecursionError('maximum depth')", DataError, "something that was given is nested too deep"),
    ],
)
def test_what_the_system_says_becomes_an_error_of_ours(raised: str, kind: type, words: str) -> None:
    with processes.started([sys.executable, "-c", f"from tritower import child\nchild.report({raised})\nexit(1)"]) as one:
        assert one.popen.wait() == 1
        error = one.failure()
    assert type(error) is kind and str(error).startswith(words)


def test_without_a_word_the_exit_status_is_told(tmp_path: Path) -> None:
    for command, words in (
        (["sh", "-c", "exit 3"], "the process ended with code 3 and left no word why"),
        (["sh", "-c", "kill -9 $$"], "the process was killed (SIGKILL)"),
        (["sh", "-c", "kill -SEGV $$"], "the process was ended by SIGSEGV"),
        (processes.program("/no/such/program"), "there is no such file or folder (in /no/such/program)"),
    ):
        with processes.started(command) as one:
            one.popen.wait()
            assert str(one.failure()).startswith(words)


def cgroup() -> Path:
    """A memory cgroup of our own below the one we are in (version 1 or 2); skips where this user may not make one."""
    for parent, knob in ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max")):
        folder = parent / f"tritower-test-{os.getpid()}"
        try:
            folder.mkdir()
            (folder / knob).write_text(str(80 << 20))
        except OSError:
            continue
        return folder
    pytest.skip("this user may not make a memory cgroup")


def test_a_process_that_the_kernel_killed_for_its_memory_says_so(tmp_path: Path) -> None:
    """Starter and child are in a group of 80 MiB, as in a container; the child takes more."""
    group = cgroup()
    text = """
import sys
from tritower import processes
hungry = "a = [bytearray(1 << 20) for _ in range(400)]"
with processes.started([sys.executable, "-c", hungry]) as one:
    one.popen.wait()
    print(one.failure())
"""
    try:
        inside = f'echo $$ > {group}/cgroup.procs; exec "$@"'
        done = subprocess.run(["sh", "-c", inside, "sh", sys.executable, "-c", text], capture_output=True, text=True)
    finally:
        group.rmdir()
    assert done.stdout == "memory ran out (its limit of 80 MiB), and the kernel killed the process. Give it more memory.\n"


@pytest.mark.slow
def test_torchrun_and_what_its_processes_tell_each_other_need_no_network(tmp_path: Path) -> None:
    """In a network namespace that has the loopback and nothing else, on a host whose name nobody knows."""
    text = START_TWO.replace("sleep", "join")
    done = subprocess.run([*NO_NETWORK, sys.executable, "-c", text, str(tmp_path)], capture_output=True, text=True, timeout=240)
    if "Operation not permitted" in done.stderr:
        pytest.skip("this user may not make a network namespace")
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["here-0", "here-1"]
    assert "FutureWarning" not in done.stderr


def test_torchrun_that_does_not_start_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(processes.START_TIMEOUT, "0.2")  # no torchrun starts so fast
    marked = family.mark()
    monkeypatch.setenv(*next(iter(marked.items())))
    with pytest.raises(StepError, match=r"torchrun has not started 2 process\(es\) of .* within 0\.2 s"):
        torchrun("sleep", tmp_path)
    family.assert_gone(marked)
    for wrong in ("soon", "0", "-1", "inf", "nan"):
        monkeypatch.setenv(processes.START_TIMEOUT, wrong)
        with pytest.raises(ConfigError, match="is not a number of seconds above 0"):
            processes.start_timeout_s()


def test_a_free_port_is_given_to_nobody_by_chance() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with socket.socket() as server:
        server.bind(("127.0.0.1", port := processes.free_port()))
        found = {processes.free_port() for _ in range(200)}
    assert max(found) < first and len(found) > 150 and port not in found


def test_a_process_whose_fellows_do_not_come_gives_up(tmp_path: Path) -> None:
    """Rank 0 of two, and no rank 1: both rooms wait for a stated time only."""
    port = str(processes.free_port())
    environment = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = processes.module("tests.support.alone")
    with processes.started(command, environment=environment | {processes.START_TIMEOUT: "1"}, stderr=subprocess.DEVNULL) as one:
        assert one.popen.wait(240) == 1
        assert str(one.failure()).startswith("not all of 2 processes have come within 1 s (in start of the process group)")


@pytest.mark.slow
def test_a_gpu_in_some_processes_only_is_told_before_they_wait_for_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"different devices \(cpu: rank 0 on \S+; cuda: rank 1 on \S+\)") as caught:
        torchrun("mixed", tmp_path)
    assert "CUDA_VISIBLE_DEVICES" in caught.value.remedy


def test_reports_are_whole_json_with_nothing_but_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(child.REPORTS, str(tmp_path))
    child.report(DataError("\ud800 and \x1b[2J", where="a\tb", remedy="C."))
    (file,) = tmp_path.iterdir()
    word = json.loads(file.read_text(encoding="ascii"))
    assert word["problem"] == r"\ud800 and \x1b[2J" and word["where"] == r"a\tb"


@pytest.mark.parametrize(
    ("raised", "lines"),
    [
        ("SchemaError('no column', where='a.csv', remedy='Add it.')",
         ["ERROR SchemaError: no column", "  where: a.csv", "  remedy: Add it."]),
        ("KeyError('x')",
         ["ERROR StepError: unexpected KeyError: 'x'", "  where: <failing>, line 5",
          "  remedy: This is a fault of tritower's, not of yours: please report it with the traceback."]),
    ],
)  # fmt: skip
def test_a_step_s_log_is_ours_and_ends_with_its_error(tmp_path: Path, raised: str, lines: list[str]) -> None:
    """As KFP's executor is run, which sets up a log of its own and prints what the step is given."""
    program = f"""
import logging
from tritower.errors import SchemaError
logging.basicConfig(format="[KFP Executor]: %(message)s", level=logging.INFO); logging.info("Got executor_input")
logging.getLogger("tritower.x").info("read: 5 rows"); raise {raised}
"""
    (tmp_path / "failing.py").write_text(program)
    paths = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = [sys.executable, "-m", "tritower.child", "--step", "failing"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    said = done.stderr.replace(str(tmp_path / "failing.py"), "<failing>").splitlines()
    assert said[0].endswith(" INFO read: 5 rows")
    assert said[-3:] == lines
    assert ("Traceback (most recent call last):" in said) == (raised[0] == "K")
    assert not any("Got executor_input" in line for line in said)
