"""Threads: fabricated cgroup trees of both versions, and on Linux this very process under an affinity and under a quota."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tritower import threads


def tree(folder: Path, kind: str, *, path: str, limits: dict[str, str], root: str = "/", mounted: str = "cpu dir") -> Path:
    """proc/cgroup and proc/mountinfo of a process in the cgroup `path`, with a limit (`quota period`) per cgroup."""
    mount, proc = folder / mounted, folder / "proc"
    proc.mkdir()
    for name, limit in limits.items():
        place = mount / name.strip("/")
        place.mkdir(parents=True, exist_ok=True)
        if kind == "cgroup2":
            (place / "cpu.max").write_text(f"{limit}\n")
        else:
            quota, period = limit.split()
            (place / "cpu.cfs_quota_us").write_text(f"{quota}\n")
            (place / "cpu.cfs_period_us").write_text(f"{period}\n")
    names, options = ("", "rw") if kind == "cgroup2" else ("cpu,cpuacct", "rw,cpu,cpuacct")
    (proc / "cgroup").write_text(f"12:memory:/elsewhere\n3:{names}:{path}\n")
    shown = str(mount).replace(" ", "\\040")
    (proc / "mountinfo").write_text(
        "22 1 0:20 / /proc rw - proc proc rw\n"
        "30 22 0:26 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
        f"31 22 0:27 {root} {shown} rw,nosuid shared:9 - {kind} {kind} {options}\n"
    )
    return proc


@pytest.mark.parametrize(
    ("kind", "limits", "path", "root", "wanted"),
    [
        ("cgroup2", {"/": "max 100000"}, "/", "/", 64),
        ("cgroup2", {"/": "200000 100000"}, "/", "/", 2),
        ("cgroup2", {"/": "150000 100000"}, "/", "/", 2),  # 1.5 CPUs
        ("cgroup2", {"/": "5000 100000"}, "/", "/", 1),
        ("cgroup2", {"/pods": "400000 100000", "/pods/a": "max 100000"}, "/pods/a", "/", 4),  # the one around it counts
        ("cgroup2", {"/pods": "400000 100000", "/pods/a": "300000 100000"}, "/pods/a", "/", 3),
        ("cgroup2", {"/pods": "400000 100000", "/pods/b": "100000 100000"}, "/pods/a", "/", 4),  # not a neighbour's
        ("cgroup2", {"/": "9900000 100000"}, "/", "/", 64),  # more than there are cores
        ("cgroup", {"/": "-1 100000"}, "/", "/", 64),
        ("cgroup", {"/": "50000 25000"}, "/", "/", 2),
        ("cgroup", {"/docker/ab": "250000 100000"}, "/docker/ab", "/", 3),
        ("cgroup", {"/": "200000 100000"}, "/docker/ab", "/docker/ab", 2),  # in the container its cgroup is the root
        ("cgroup", {"/": "200000 100000"}, "/docker/ab", "/", 2),  # a path that cannot be seen from here
        ("cgroup2", {"/": "200000 100000"}, "/../../up", "/", 2),  # above the namespace
    ],
)
def test_a_quota_counts_in_both_versions(tmp_path, kind, limits, path, root, wanted):
    assert threads.available(proc=tree(tmp_path, kind, path=path, limits=limits, root=root), cores=64) == wanted


def test_no_cgroups_no_limit(tmp_path):
    assert threads.quota(tmp_path / "none") is None
    assert threads.available(proc=tmp_path / "none", cores=7) == 7


def test_both_versions_at_once_as_on_a_hybrid_system(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    first = tree(tmp_path / "1", "cgroup", path="/", limits={"/": "300000 100000"})
    second = tree(tmp_path / "2", "cgroup2", path="/", limits={"/": "max 100000"})
    for name in ("cgroup", "mountinfo"):
        (first / name).write_text((second / name).read_text() + (first / name).read_text())
    assert threads.available(proc=first, cores=64) == 3


def test_a_knob_comes_before_the_users_variable_and_that_before_the_machine(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert threads.chosen(7) == 7 and threads.chosen() == 5
    for unusable in ("", "0", "all"):
        monkeypatch.setenv("OMP_NUM_THREADS", unusable)
        assert threads.chosen() == threads.available()


_COUNT = "from tritower import threads; print(threads.available(), threads.quota())"
_CAPPED = """
import numpy, pyarrow, threadpoolctl
from tritower import threads
threads.cap_libraries()
print(max(pool["num_threads"] for pool in threadpoolctl.threadpool_info()), pyarrow.cpu_count())
"""


def run(program: str, before=None, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program],
        preexec_fn=before,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return done.stdout.split()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no CPU affinity")
def test_affinity_counts():
    one = min(os.sched_getaffinity(0))
    assert run(_COUNT, lambda: os.sched_setaffinity(0, {one}))[0] == "1"


def test_libraries_are_capped_and_fewer_threads_stay():
    assert run(_CAPPED, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="2") == ["1", "1"]
    assert run(_CAPPED, OMP_NUM_THREADS="8", OPENBLAS_NUM_THREADS="1")[0] == "1"


def test_a_quota_of_the_kernels_own(tmp_path):
    """In a cgroup of 0.5 CPUs there is one thread to use; where no cgroup can be made, the process's own limit is read."""
    first = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").exists()
    group = Path("/sys/fs/cgroup/cpu" if first else "/sys/fs/cgroup") / f"tritower-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no cgroup can be made here: needs root and a writable /sys/fs/cgroup")
    try:
        if not (group / ("cpu.cfs_quota_us" if first else "cpu.max")).exists():
            pytest.skip("the cpu controller is not handed down to new cgroups here")
        if first:
            (group / "cpu.cfs_quota_us").write_text("50000")
        else:
            (group / "cpu.max").write_text("50000 100000")
        found = run(_COUNT, lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
        assert found == ["1", "0.5"]
    finally:
        group.rmdir()
