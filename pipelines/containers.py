"""Run a compiled pipeline's steps in Docker containers, with an exit status that can be believed.

`kfp.local.DockerRunner` starts containers with `auto_remove`, then reads the log and the exit code; a container that fails at
once is gone by then and counts as a success (kubeflow/pipelines#13332). `honest_exit_codes` puts a runner in its place
that creates the container, starts it, streams its log, waits for the exit code and only then removes it. It also clears
the image's ENTRYPOINT, so that the step's own command is what runs.
"""

import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from tritower import child, processes
from tritower._build import Image, image_name
from tritower.errors import StepError, TritowerError

from pipelines import children, kernels

BUILT = Path(__file__).parents[1] / "build/images/built.json"
"""Image -> the full name under which `images/build.py build` last built it."""
_REPORTS = "/run/tritower"  # where a step in a container leaves word of its failure
_LABEL = "tritower.run"
SCRATCH = "rw,exec,nosuid,mode=1777,size=8g"


def runner_arguments(*, read_only: Iterable[Path], gpus: bool = False) -> dict[str, Any]:
    """Arguments of `kfp.local.DockerRunner`: no network, a read-only root, no capabilities, this user's id, group 0.

    Args:
        read_only: files and folders outside the pipeline root that steps read; mounted at their own paths.
        gpus: hand every GPU of this machine to the containers.
    """
    arguments: dict[str, Any] = {
        "network_mode": "none",
        "read_only": True,
        "tmpfs": {"/tmp": SCRATCH},  # noqa: S108 - inside the container
        "user": f"{os.getuid()}:0",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        # DataLoader workers and gloo exchange tensors through shared memory; Docker's default is 64 MB.
        "shm_size": "2g",
        "mounts": _binds(read_only),
    }
    if gpus:
        from docker.types import DeviceRequest

        arguments["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return arguments


def _binds(paths: Iterable[Path]) -> list[Any]:
    from docker.types import Mount

    return [Mount(target=str(path), source=str(path), type="bind", read_only=True) for path in sorted(set(paths))]


def writable(folders: Iterable[Path]) -> list[Any]:
    """Mounts of folders that steps write to, at their own paths; made where there are none."""
    from docker.types import Mount

    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return [Mount(target=str(folder), source=str(folder), type="bind") for folder in folders]


def user_names(folder: Path) -> Any:
    """Mount an /etc/passwd, kept in `folder`, that names the user of the containers: Spark does not start without a name."""
    from docker.types import Mount

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "passwd"
    users = {os.getuid(): "tritower"} | {0: "root"}
    lines = [f"{name}:x:{number}:0:{name}:/tmp:/usr/sbin/nologin\n" for number, name in users.items()]
    file.write_text("".join(lines), encoding="utf-8")
    return Mount(target="/etc/passwd", source=str(file.absolute()), type="bind", read_only=True)


@contextlib.contextmanager
def honest_exit_codes(failures: list[TritowerError] | None = None) -> Iterator[None]:
    """While the block runs, `kfp.local.DockerRunner` reports the exit code the container really had.

    Args:
        failures: gets the error of each step that fails.
    """
    from kfp.local import docker_task_handler

    original = docker_task_handler.run_docker_container
    docker_task_handler.run_docker_container = functools.partial(run_container, failures=failures)
    try:
        yield
    finally:
        docker_task_handler.run_docker_container = original


def run_container(
    client: Any,
    image: str,
    command: list[str],
    volumes: dict[str, Any],
    failures: list[TritowerError] | None = None,
    **arguments: Any,
) -> int:
    """Run one container to its end, its log on standard output; its exit code. However the block is left, it is removed.

    Args:
        client: a `docker.DockerClient`.
        image: a compiled image name; see `on_this_machine` for tritower's own.
        command: the step's command, list of words.
        volumes: mounts made by kfp.
        failures: gets the error of a step that fails.
        arguments: more arguments of `client.containers.create`.

    Raises:
        StepError: the image is not on this machine.
    """
    import docker
    from docker.types import Mount

    image = on_this_machine(image)
    _remove_abandoned(client)
    with tempfile.TemporaryDirectory(prefix="reports-", ignore_cleanup_errors=True) as reports:
        environment = {**kernels.of_the_user(), **(arguments.pop("environment", None) or {}), child.REPORTS: _REPORTS}
        mounts = [*arguments.pop("mounts", []), Mount(target=_REPORTS, source=reports, type="bind")]
        try:
            container = client.containers.create(
                image, command=children.under_child(command), entrypoint="", volumes=volumes, environment=environment,
                mounts=mounts, labels={_LABEL: _owner(os.getpid())}, **arguments,
            )  # fmt: skip
        except docker.errors.ImageNotFound:
            raise StepError("the image is not on this machine", where=image, remedy=f"Run `{_target(image)}` first.") from None
        try:
            container.start()
            pending = b""
            for chunk in container.logs(stream=True, follow=True):
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    print(line.decode(errors="replace"))
            if pending:
                print(pending.decode(errors="replace"))
            code = int(container.wait()["StatusCode"])
            if code and failures is not None:
                failures.append(processes.told(Path(reports)) or _unsaid(container, code))
            return code
        finally:
            container.remove(force=True)


def _unsaid(container: Any, code: int) -> StepError:
    container.reload()
    if container.attrs["State"]["OOMKilled"]:
        return StepError("memory ran out, and the kernel killed the container's process", remedy="Give it more memory.")
    return processes.unsaid(code)


def _remove_abandoned(client: Any) -> None:
    """Remove containers whose run was killed before it could do so itself."""
    import docker

    for container in client.containers.list(all=True, filters={"label": _LABEL}, ignore_removed=True):
        space, pid, _ = container.labels[_LABEL].split(" ")
        # In another process namespace, or after a reboot, the number would mean another process.
        if space == _owner(os.getpid()).split(" ")[0] and container.labels[_LABEL] != _owner(int(pid)):
            with contextlib.suppress(docker.errors.APIError):  # another run may be removing it
                container.remove(force=True)


def _owner(pid: int) -> str:
    """A process so that no other one is ever taken for it: its namespace, number and start."""
    boot, space, stat = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid"), Path(f"/proc/{pid}/stat")
    try:
        started = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
        return f"{boot.read_text(encoding='ascii').strip()}-{space.readlink()} {pid} {started}"
    except OSError:
        return f"- {pid} -"


def _target(image: str) -> str:
    return "make image-spark" if image.rsplit("/", 1)[-1].startswith("spark:") else "make images"


def on_this_machine(image: str, built: Path = BUILT) -> str:
    """The image to run for a compiled image name.

    TRITOWER_IMAGE_PREFIX and TRITOWER_IMAGE_TAG have the say where either is set. Else a name that was compiled without
    them stands for what `make images` last built here, as its record says, and any other name for itself.

    Raises:
        StepError: the record cannot be read.
    """
    kind = image.rsplit("/", 1)[-1].split(":")[0]
    if kind not in get_args(Image):
        return image
    if os.environ.get("TRITOWER_IMAGE_PREFIX") or os.environ.get("TRITOWER_IMAGE_TAG"):
        return image_name(kind)
    if image != image_name(kind) or not built.exists():
        return image
    return _record(built).get(kind, image)


@functools.cache  # images that are built while a run is under way are not for that run
def _record(built: Path) -> dict[str, str]:
    try:
        names: dict[str, str] = json.loads(built.read_text(encoding="utf-8"))
    except ValueError:
        raise StepError(
            "the record of built images cannot be read", where=str(built), remedy="Run `make images` again."
        ) from None
    return names
