"""Work in processes of its own: what is to run (`Job`) behind a small protocol of who runs it (`Launcher`).

A job is a module of ours, run as `python -m MODULE ARGUMENTS --name=LOCATION ...` in every process. Its processes read what
they need from locations and write what they make to locations (see `storage.staging`); they share no disk with the launcher.
Who they are among each other they know from torchrun's environment alone.

`local` runs a job on this machine, the others on a Kubernetes cluster (`cluster/`, loaded by name: nothing imports it).
`katib` is what a search takes (`searches.py`), whose trials are PyTorchJobs; any other job is one of them as well.
"""

import contextlib
import importlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from tritower import processes, storage
from tritower.config import check
from tritower.errors import ConfigError, StepError

LauncherName = Literal["local", "pytorchjob", "trainjob", "katib"]
_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What each node of a job is given. 0 leaves it to the launcher; the local one shares the machine as it is."""

    cpus: float = 0
    """Cores."""

    memory_mib: int = 0
    """MiB of memory."""

    gpus: int = 0
    """GPUs; one for each process, where a job uses them."""

    def __post_init__(self) -> None:
        for name in ("cpus", "memory_mib", "gpus"):
            check(getattr(self, name) >= 0, name, getattr(self, name), "of at least 0")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A module to run in `nodes` x `processes` processes."""

    name: str
    """What people call it, such as `ranker`."""

    module: str
    """A module that runs as `python -m`, such as `tritower.ranker`."""

    arguments: tuple[str, ...] = ()
    """Its arguments beside the locations."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    """Option -> location that it reads: a path or a URI."""

    outputs: Mapping[str, str] = field(default_factory=dict)
    """Option -> location that it writes."""

    nodes: int = 1
    """Machines, 1 or more."""

    processes: int = 1
    """Processes on each, 1 or more."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of its processes, on top of what the launcher sets."""

    resources: Resources = Resources()
    """What each node is given."""

    def __post_init__(self) -> None:
        check(self.nodes >= 1, "nodes", self.nodes, "of at least 1")
        check(self.processes >= 1, "processes", self.processes, "of at least 1")
        both = sorted(self.inputs.keys() & self.outputs.keys())
        check(not both, "outputs", both, "that is no input as well")

    def words(self) -> list[str]:
        """The module's arguments, locations included."""
        locations = {**self.inputs, **self.outputs}
        return [*self.arguments, *(f"--{name}={location}" for name, location in locations.items())]


class Launcher(Protocol):
    """Runs jobs. All launchers end a job that failed, one whose `run` is left by an exception, and one whose launcher dies."""

    def run(self, job: Job, *, look: Callable[[], None] | None = None, log: Path | None = None) -> None:
        """Run a job to its end.

        Args:
            job: what to run.
            look: called every now and then while it runs; what it raises ends the job and is raised here.
            log: file for what rank 0 prints; standard error when None. A launcher may write that of other ranks as well.

        Raises:
            TritowerError: what the process that failed first raised.
            StepError: a process was killed, or the job did not start.
        """


def open_launcher(name: str = "local", settings: Mapping[str, Any] | str | None = None) -> Launcher:
    """The launcher called `name`.

    Args:
        name: a `LauncherName`.
        settings: knobs of `cluster.config.ClusterConfig`, for one that runs jobs on a cluster.

    Raises:
        ConfigError: there is no such launcher, or a setting is wrong.
    """
    if name == "local":
        return LocalLauncher()
    if name in get_args(LauncherName):
        launcher: Launcher = importlib.import_module("tritower.cluster.launcher").open_launcher(name, settings)
        return launcher
    raise ConfigError(f"unknown launcher {name!r}", where="launcher", remedy=f"Use {', '.join(get_args(LauncherName))}.")


def follow(job: Job, launcher: str, settings: Mapping[str, Any] | str | None, *, told: str, kept: str = "") -> dict[str, Any]:
    """Run a job elsewhere; of what it writes, nothing but a small file comes to this machine.

    Args:
        job: reads and writes locations that its processes can open.
        launcher: a `LauncherName` other than local.
        settings: that launcher's.
        told: location of a JSON file that the job writes.
        kept: location of what it keeps between attempts, removed after its success; empty for none, or for the user's own.

    Returns:
        The value of the file.

    Raises:
        TritowerError: see `Launcher.run`.
        StorageError: the file cannot be read.
    """
    open_launcher(launcher, settings).run(job)
    if kept:
        storage.remove(kept)
    with tempfile.TemporaryDirectory(prefix="told-") as scratch:
        found: dict[str, Any] = storage.read_json(storage.fetch(told, Path(scratch) / "told.json"))
        return found


def location(artifact: Any, launcher: str = "local") -> str:
    """Where a job of this launcher writes an artifact of KFP's: its local copy, or its place in the run's store."""
    return str(artifact.path if launcher == "local" else artifact.uri)


def settings(cluster: Mapping[str, Any], task: Any = None) -> dict[str, Any]:
    """A launcher's settings, with what the pipeline gave the step's own pod as `pod`.

    Args:
        cluster: knobs of `cluster.config.ClusterConfig`; what its `pod` names stays.
        task: KFP's TaskConfig, which has nothing on other backends and local runners.
    """
    fields = {
        "affinity": "affinity", "env": "env", "node_selector": "nodeSelector", "resources": "resources",
        "tolerations": "tolerations", "volume_mounts": "volumeMounts", "volumes": "volumes",
    }  # fmt: skip
    given = {word: value for name, word in fields.items() if (value := getattr(task, name, None))}
    pod = cluster.get("pod") or {}
    return {**cluster, "pod": {**given, **(json.loads(pod) if isinstance(pod, str) else pod)}} if given else dict(cluster)


class LocalLauncher:
    """Runs jobs on this machine: one process by itself, several under torchrun, without a network.

    Their temporary files go with the job, however it ends, as long as this process lives.
    """

    def run(self, job: Job, *, look: Callable[[], None] | None = None, log: Path | None = None) -> None:
        """See `Launcher`; `log` gets what all ranks print."""
        if job.nodes > 1:
            raise ConfigError(f"{job.nodes} nodes on one machine", where=job.name, remedy="Use one node, or another launcher.")
        many = job.processes > 1
        command = processes.program(*_torchrun(job)) if many else processes.module(job.module, *job.words())
        with contextlib.ExitStack() as held:
            scratch = held.enter_context(tempfile.TemporaryDirectory(prefix=f"{job.name}-", ignore_cleanup_errors=True))
            output = held.enter_context(log.open("wb")) if log else 2
            own = {"PYTHONUNBUFFERED": "1", "TMPDIR": scratch, **(_loopback() if many else {}), **job.environment}
            running = held.enter_context(processes.started(command, environment=own, stdout=output, stderr=output))
            if _followed(job, running, look):
                raise running.failure()


def _followed(job: Job, running: processes.Process, look: Callable[[], None] | None) -> int:
    """The exit code of a job's first process."""
    limit_s = processes.start_timeout_s()
    start, waiting = time.monotonic(), job.processes > 1
    while (code := running.ended(_POLL_S)) is None:
        if look:
            look()
        waiting = waiting and len(list(running.reports.glob("*.started"))) < job.processes
        if waiting and time.monotonic() - start > limit_s:
            raise StepError(
                f"torchrun has not started {job.processes} process(es) of {job.module} within {limit_s:g} s",
                where="torchrun",
                remedy=f"Look at the load and the network of the machine, or raise {processes.START_TIMEOUT}.",
            )
    return code


def _torchrun(job: Job) -> list[str]:
    """Static rendezvous without restarts: a failed process ends all at once. Every address is the loopback's, so that neither a
    network nor a host name is needed."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={job.processes}",
        "--rdzv-backend=static", "--local-addr=127.0.0.1", "--master-addr=127.0.0.1", f"--master-port={processes.free_port()}",
        "--max-restarts=0", "-m", "tritower.child", "--worker", job.module, *job.words(),
    ]  # fmt: skip


def _loopback() -> dict[str, str]:
    """Without a network gloo finds no address of this machine by its name; the loopback is there."""
    names = [name for _, name in socket.if_nameindex()]
    return {"GLOO_SOCKET_IFNAME": "lo"} if "lo" in names and "GLOO_SOCKET_IFNAME" not in os.environ else {}
