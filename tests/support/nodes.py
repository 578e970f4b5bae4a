"""Two nodes of a job on this machine, and a store: each node a torchrun agent with the environment of a PyTorchJob's pod.

Where this user may make namespaces, a node has an address, a network, processes and a /tmp of its own, which nobody else sees;
elsewhere nodes differ in their folders only.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tritower import processes

from tests.support import family
from tests.support.s3 import client, s3_server


@dataclass
class Nodes:
    """The nodes and the address at which they reach this process and its servers."""

    folder: Path
    host: str = "127.0.0.1"
    addresses: tuple[str, ...] = ("127.0.0.1", "127.0.0.1")
    namespaces: tuple[str, ...] = ()
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    marks: tuple[dict[str, str], ...] = field(default_factory=lambda: (family.mark(), family.mark()))

    def __post_init__(self) -> None:
        self.port = processes.free_port()

    def start(self, number: int, module: str, arguments: Sequence[str], each: int = 1) -> None:
        """Start the agent of a node, as its pod does; what it and its `each` processes print is in `log(number)`."""
        pod = {
            "PET_NNODES": "2", "PET_NODE_RANK": str(number), "PET_NPROC_PER_NODE": str(each),
            "PET_MASTER_ADDR": self.addresses[0], "PET_MASTER_PORT": str(self.port), "PET_MAX_RESTARTS": "0",
            # the operator says the same in the names of version 1: they are the pod's rank and the number of pods
            "RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": self.addresses[0], "MASTER_PORT": str(self.port),
        }  # fmt: skip
        command = [sys.executable, "-m", "torch.distributed.run", "-m", module, *arguments]
        if self.namespaces:
            pod["GLOO_SOCKET_IFNAME"] = "beside"
            alone = [
                "unshare",
                "-m",
                "-p",
                "-f",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                'mount -t tmpfs tmpfs /tmp && cd / && exec "$@"',
                "sh",
            ]
            command = ["ip", "netns", "exec", self.namespaces[number], *alone, *command]
        else:
            pod |= {"TMPDIR": str(self.folder / f"tmp-{number}"), "PET_LOCAL_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
            Path(pod["TMPDIR"]).mkdir(exist_ok=True)
        with self.log(number).open("ab") as log:
            own = os.environ | {"OMP_NUM_THREADS": "1"} | pod | self.marks[number]
            self.started.append(subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True))

    def kill(self, number: int) -> None:
        """End a node as a lost machine does: all of it at once, torchrun's workers too, which have sessions of their own."""
        family.end(self.marks[number])

    def wait_for(self, there: Callable[[], object]) -> None:
        """Wait for something that comes while all agents run."""
        deadline = time.monotonic() + 120
        while not there():
            assert time.monotonic() < deadline and all(one.poll() is None for one in self.started), self.said()
            time.sleep(0.01)

    def said(self) -> str:
        """What the nodes printed."""
        return "\n".join(self.log(number).read_text() for number in range(2))

    def log(self, number: int) -> Path:
        """The file of what a node printed."""
        return self.folder / f"node-{number}.log"

    def ended(self, timeout_s: float = 250) -> list[int]:
        """The exit codes of all agents that were started, when all have ended; they may be started again then."""
        deadline = time.monotonic() + timeout_s
        while any(one.poll() is None for one in self.started):
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        codes = [one.wait() for one in self.started]
        self.started.clear()
        return codes


@contextlib.contextmanager
def with_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """Two nodes, and an S3 server with the bucket `bucket` that they and this process reach."""
    (folder / "nodes").mkdir()
    with two_nodes(folder / "nodes") as nodes, s3_server(folder / "server.log", nodes.host) as url:
        for name, value in {"TRITOWER_S3_ENDPOINT": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
            monkeypatch.setenv(name, value)
        client(url).create_bucket(Bucket="bucket")
        yield nodes


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[Nodes]:
    """Two nodes; whatever runs on them is ended with the block. `folder` is this process's, for logs."""
    nodes = Nodes(folder)
    with contextlib.ExitStack() as undo:
        hides = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True, check=False)
        here = os.getpid()
        names = (f"tt{here}-0", f"tt{here}-1")
        hosts = tuple(f"10.{here // 250 % 250}.{here % 250}.{number}" for number in (1, 2, 3))
        if not hides.returncode and all(map(_ip, _wires(names, hosts, undo))):
            nodes = Nodes(folder, hosts[2], hosts[:2], names)
        try:
            yield nodes
        finally:
            for number in range(2):
                nodes.kill(number)
            for one in nodes.started:
                one.wait()


def _wires(names: tuple[str, ...], hosts: tuple[str, ...], undo: contextlib.ExitStack) -> Iterator[str]:
    """Arguments of `ip`: a wire from each node to this process, and one between the two. A bridge would need forwarding."""
    for number, (name, host) in enumerate(zip(names, hosts, strict=False)):
        undo.callback(_ip, f"netns delete {name}")  # its wires go with it
        yield f"netns add {name}"
        yield f"link add {name} type veth peer name inside netns {name}"
        yield f"address add {hosts[2]}/32 dev {name}"
        yield f"link set {name} up"
        yield f"route add {host} dev {name}"
        yield f"-n {name} link set lo up"
        yield f"-n {name} link set inside up"
        yield f"-n {name} address add {host}/32 dev inside"
        yield f"-n {name} route add {hosts[2]} dev inside"
        if number:
            yield f"-n {name} link add beside type veth peer name beside netns {names[0]}"
    for name, own, other in ((names[0], *hosts[:2]), (names[1], *hosts[1::-1])):
        yield f"-n {name} address add {own}/32 dev beside"
        yield f"-n {name} link set beside up"
        yield f"-n {name} route add {other} dev beside"


def _ip(words: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return not subprocess.run(["ip", *words.split()], capture_output=True, check=False).returncode
    return False
