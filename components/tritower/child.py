"""The first code of every process that tritower starts: it ends when its parent ends, and reports why it failed.

    python -m tritower.child MODULE ARGUMENTS...             run a module as `python -m MODULE` does
    python -m tritower.child --worker MODULE ARGUMENTS...    the same under torchrun; also reports death by a signal
    python -m tritower.child --exec COMMAND ARGUMENTS...     become another program
    python -m tritower.child --step MODULE ARGUMENTS...      the first, with the log of a step; containers of steps run KFP so

The kernel ends the process as soon as the thread that started it is gone (PR_SET_PDEATHSIG of Linux, which outlives exec but
not fork). So a chain of such processes ends with the first of them, however that one ends. A failure travels in a file, as a
class of `errors.py`; no log is parsed for it. `processes.py` is the other side.

Set by `processes.py`:
    TRITOWER_PARENT     the process that this one must not outlive
    TRITOWER_REPORTS    the folder for reports of failures
"""

import contextlib
import ctypes
import json
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path

from tritower import errors, logs
from tritower.errors import DataError, StepError, TritowerError

PARENT, REPORTS = "TRITOWER_PARENT", "TRITOWER_REPORTS"
_PR_SET_PDEATHSIG = 1
_CGROUPS = Path("/sys/fs/cgroup")


def main(arguments: list[str]) -> int:
    """Run the command line."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    tie()
    option = arguments.pop(0) if arguments[0] in ("--exec", "--worker", "--step") else ""
    if option == "--worker":
        _watch()
    sys.argv = arguments
    try:
        if option == "--exec":
            _become(arguments)
        if option == "--step":  # before KFP does: it would print all inputs
            logs.setup()
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except Exception as error:  # noqa: BLE001 - a process's top
        ours = explained(error)
        if ours is not error:
            traceback.print_exc()
        print(*logs.lines(ours), sep="\n", file=sys.stderr, flush=True)
        report(error)
        return 1
    return 0


def _become(command: list[str]) -> None:
    try:
        os.execvp(command[0], command)  # noqa: S606 - a list of words, no shell
    except OSError as error:
        raise OSError(error.errno, error.strerror, command[0]) from None


def tie() -> None:
    """End this process when its parent ends; the variable tells its children to do the same."""
    parent = int(os.environ.get(PARENT, "0"))
    os.environ[PARENT] = str(os.getpid())
    if sys.platform != "linux" or not parent:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before the call. Another process between the two, such as a shell, is none of our business.
    if os.getppid() != parent and not Path(f"/proc/{parent}").exists():
        os._exit(1)


def report(error: BaseException) -> None:
    """Report a failure to the process that started this one; does nothing if it asked for no reports."""
    folder = os.environ.get(REPORTS)
    if folder:
        ours = explained(error)
        kind = next(kind for kind in type(ours).__mro__ if kind.__module__ == errors.__name__)
        _write(Path(folder), kind.__name__, ours, foreign=ours is not error)


def explained(error: BaseException) -> TritowerError:
    """The TritowerError for any exception; an unexpected one is named together with its place in our code."""
    if isinstance(error, TritowerError):
        return error
    place, said = _place(error), f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError):
        return StepError(f"memory ran out ({said})", where=place, remedy="Give it more memory.")
    if isinstance(error, RecursionError):
        remedy = "Look at the files, folders and knobs that were given."
        return DataError("something that was given is nested too deep", where=place, remedy=remedy)
    if isinstance(error, OSError):
        return errors.of_system(error, where=place)
    remedy = "This is a fault of tritower's, not of yours: please report it with the traceback."
    return StepError(f"unexpected {said}", where=place, remedy=remedy)


def _place(error: BaseException) -> str:
    """File and line of the innermost frame in our own code, or of the innermost frame at all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}tritower{os.sep}" in frame.filename and "child.py" not in frame.filename]
    last = (own or list(frames))[-1:]
    return "".join(f"{frame.filename}, line {frame.lineno}" for frame in last)


def _write(folder: Path, kind: str, error: TritowerError, *, foreign: bool = False, number: int = 0) -> None:
    """Write `<rank>.json`.

    Args:
        kind: a class of `errors.py`.
        foreign: the exception, if it was not a TritowerError.
        number: the signal that killed the process, if one did.
    """
    name = f"{os.environ.get('RANK', '0')}.json"
    word = {"kind": kind, "problem": error.problem, "where": error.where, "remedy": error.remedy}
    facts = {"foreign": foreign, "signal": number, "time": time.time_ns()}
    with contextlib.suppress(OSError):  # a full disk must not hide the first error
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_text(json.dumps(word | facts), encoding="utf-8")
        temporary.replace(folder / name)


def _watch() -> None:
    """Continue in a child process. The parent stays to report how the child ended: torchrun writes that to its log only."""
    folder = os.environ.get(REPORTS)
    if folder:
        (Path(folder) / f"{os.environ.get('RANK', '0')}.started").touch()
    before = lost_to_memory()
    pid = os.fork()
    if not pid:
        tie()
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code < 0 and folder:
        _write(Path(folder), StepError.__name__, killed(-code, before), number=-code)
    os._exit(128 - code if code < 0 else code)


def killed(number: int, before: tuple[int, int]) -> StepError:
    """The error for a process that a signal killed.

    Args:
        number: the signal's.
        before: `lost_to_memory()` before the process started.
    """
    with contextlib.suppress(ValueError):
        name = signal.Signals(number).name
        if number != signal.SIGKILL:
            return StepError(f"the process was ended by {name}", remedy="Its log may say why.")
        ours, machine = (now - then for now, then in zip(lost_to_memory(), before, strict=True))
        if ours > 0 or machine > 0:
            which = f"its limit of {memory_limit()}" if ours > 0 else "the machine's"
            return StepError(f"memory ran out ({which}), and the kernel killed the process", remedy="Give it more memory.")
        return StepError("the process was killed (SIGKILL)", remedy="If nobody did it, memory ran out: give it more.")
    return StepError(f"the process was ended by signal {number}", remedy="Its log may say why.")


def lost_to_memory() -> tuple[int, int]:
    """How many processes the kernel has killed because memory ran out: in this process's cgroup, and on the machine."""
    ours = sum(_count(folder / name) for folder in _cgroups() for name in ("memory.events", "memory.oom_control"))
    return ours, _count(Path("/proc/vmstat"))


def memory_limit() -> str:
    """The memory limit of this process's cgroup, in words."""
    for folder in _cgroups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                return f"{int((folder / name).read_text(encoding='ascii')) / 2**20:,.0f} MiB"
    return "the container or group"


def _cgroups() -> list[Path]:
    """The folders of this process's memory cgroup: of version 2 and version 1, also as a container sees them."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            roots = [_CGROUPS, _CGROUPS / "unified"] if not controllers else [_CGROUPS / "memory"]
            if not controllers or "memory" in controllers.split(","):
                # Without a cgroup namespace a container sees the host's path here, and its own group at the root.
                found += [next((p for p in (root / path.lstrip("/"), root) if p.is_dir()), root) for root in roots]
    return found


def _count(file: Path) -> int:
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
