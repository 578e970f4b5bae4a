"""Run a compiled pipeline on this machine: one subprocess per step, no server and no container.

`kfp.local` writes everything, its own messages and what the steps log, to standard output. `StepLog` stands there instead:
each step's output goes to a file of its own, and the reader gets a line per step.

Facts of kfp 2.17 that the code below relies on:
* `Executing task 'x'`, `Task 'x' finished with status S` and `Task x cache hit` are the only marks of progress. The first two
  name the component, the last one the task.
* A step's lines are indented by four spaces; kfp's own lines are not, so that no step can imitate them.
* A cache entry is `<cache root>/<key>.json`; it counts only while every artifact file that it names exists.
* `workspace_root` is deleted after each run, so none is given: kfp makes one of its own.
"""

import contextlib
import io
import json
import logging
import os
import platform
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import yaml
from tritower import storage
from tritower.errors import StepError, TritowerError, of_system

from pipelines import children, staged
from pipelines.containers import honest_exit_codes
from pipelines.version import step_versions

_CODE_NOTE = "code.json"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_MARK = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} - (?:INFO|ERROR) - (.*)$")
_START = re.compile(r"^Executing task '(.+)'$")
_END = re.compile(r"^Task '(.+)' finished with status (SUCCESS|FAILURE)$")
_CACHED = re.compile(r"^Task (\S+) cache hit \(key=([0-9a-f]+)\)")


@dataclass
class StepRun:
    """What became of one step. `numbers` are the metadata of its artifacts."""

    name: str
    status: str = "running"
    seconds: float = 0.0
    numbers: dict[str, Any] = field(default_factory=dict)
    log: Path | None = None


@dataclass
class Outcome:
    """A finished run: where the pipeline's output artifacts are, by name, and the steps in the order they ran."""

    outputs: dict[str, str]
    steps: list[StepRun]


KERNELS = {
    "NUMBA_CPU_NAME": "x86-64-v3",
    "NUMBA_CPU_FEATURES": "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+xsave",
}
"""What the images compile kernels for: every x86-64 processor since 2015."""


@contextlib.contextmanager
def kernels_of_the_images() -> Iterator[None]:
    """Let numba compile for the processor that the images name, where this one can run it and the user has not named another.

    numba adds up in the order that suits its processor; cosines then differ in the last bit, and with them the trees of
    XGBoost: a run here would not give the figures of a run in containers.
    """
    named = any(name in os.environ for name in KERNELS)
    own = {} if named or not _runs_kernels() else KERNELS
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            del os.environ[name]


def _runs_kernels() -> bool:
    cpu = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpu.exists():
        return False
    flags = set(re.findall(r"^flags\s*:(.*)$", cpu.read_text(), re.MULTILINE)[0].split())
    return {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"} <= flags


def run(
    pipeline: Path,
    arguments: Mapping[str, Any],
    *,
    root: Path,
    store: str = "",
    use_cache: bool = True,
    containers: Mapping[str, Any] | None = None,
    report: Callable[[StepRun], None] = lambda step: None,
) -> Outcome:
    """Execute a compiled pipeline with `kfp.local`: a subprocess of this environment per step, or a container.

    Args:
        pipeline: the compiled YAML.
        arguments: pipeline parameters.
        root: folder for artifacts, logs (`root/logs/<step>.log`) and the cache; kept between runs; absolute.
        store: location in an object store that gets the artifacts instead; `root` then keeps the rest.
        use_cache: take a step's result from an earlier run with equal inputs and equal code.
        containers: arguments for containers (`containers.runner_arguments`); None = subprocesses.
        report: called when a step starts (status "running") and when it ends ("done", "cached" or "failed").

    Raises:
        StepError: a step failed; the message names it, its error and its log.
    """
    from kfp import components, local

    _prepare(root)
    tasks, failures = _tasks(pipeline), list[TritowerError]()
    log = StepLog(root=root, tasks=tasks, report=report)
    runner = local.SubprocessRunner(use_venv=False) if containers is None else local.DockerRunner(**containers)
    local.init(
        runner=runner,
        pipeline_root=str(root / "artifacts"),
        cache_root=str(root / "cache"),
        enable_caching=use_cache,
    )
    component = components.load_component_from_file(str(pipeline))
    place = staged.steps(store, root / "artifacts") if store else contextlib.nullcontext()
    kernels = kernels_of_the_images() if containers is None else contextlib.nullcontext()
    processes = contextlib.ExitStack()
    processes.enter_context(honest_exit_codes(failures))
    processes.enter_context(children.steps(failures))
    with log.attached(), processes, place, kernels, _fresh_cache(root, store, step_versions(pipeline)):
        try:
            task = component(**arguments)
        except RuntimeError as error:
            raise log.failure(failures) or error from None
        except KeyboardInterrupt as stop:
            stop.add_note(log.how_to_go_on(use_cache=use_cache))
            raise
    outputs = {name: artifact.uri for name, artifact in task.outputs.items()}
    return Outcome(outputs=outputs, steps=log.steps)


class StepLog(io.TextIOBase):
    """Standard output while a pipeline runs: splits it by step and follows progress.

    Args:
        root: the run's folder; `logs/<step>.log` is replaced when its step runs again.
        tasks: task name -> (component name, name to show).
        report: called when a step starts and when it ends.
    """

    def __init__(self, *, root: Path, tasks: dict[str, tuple[str, str]], report: Callable[[StepRun], None]) -> None:
        self.steps: list[StepRun] = []
        self._root, self._tasks, self._report = root, tasks, report
        self._shown = dict(tasks.values())
        self._component = ""
        self._current: StepRun | None = None
        self._file: TextIO | None = None
        self._line = ""
        self._started = 0.0
        (root / "logs").mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Take over standard output and the root logger until the block ends."""
        root = logging.getLogger()
        level, handlers = root.level, root.handlers[:]
        root.handlers[:] = [_Forward(self._message)]
        root.setLevel(logging.INFO)
        try:
            with contextlib.redirect_stdout(self), warnings.catch_warnings():
                # Image names without "python" and display names, both harmless in a subprocess.
                warnings.simplefilter("ignore")
                yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            if self._file:
                self._file.close()

    def write(self, text: str) -> int:
        """Take text from kfp or a step; acts on whole lines."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            mark = _MARK.match(_ANSI.sub("", line))
            if mark:
                self._message(mark.group(1))
            elif self._file and line.startswith("    "):
                self._file.write(line[4:] + "\n")
                self._file.flush()
        return len(text)

    def failure(self, errors: Sequence[TritowerError]) -> StepError | None:
        """The error of the step that failed, if one did; `errors` are those that steps ended with."""
        step = next((step for step in reversed(self.steps) if step.status == "failed"), None)
        if not step:
            return None
        error = errors[-1] if errors else StepError("it left no word why")
        problem = f"{step.name}: {type(error).__name__}: {error.problem}"
        return StepError(problem, where=error.where, remedy=f"{error.remedy} The step's log is {step.log}.".lstrip())

    def how_to_go_on(self, *, use_cache: bool) -> str:
        """For a reader whose run was stopped: what was running, and how to go on."""
        running = [step.name for step in self.steps if step.status == "running"]
        ended = f"The step {running[0]} was ended." if running else "No step was running."
        again = "the finished steps come from the cache" if use_cache else "without the cache, from the start"
        return f"{ended} Run it again to go on: {again}."

    def _message(self, message: str) -> None:
        if match := _START.match(message):
            self._start(match.group(1))
        elif match := _CACHED.match(message):
            step = StepRun(name=self._tasks.get(match.group(1), ("", match.group(1)))[1], status="cached")
            step.numbers = self._cached_numbers(match.group(2))
            self.steps.append(step)
            self._report(step)
        elif (match := _END.match(message)) and self._current:
            self._current.status = "done" if match.group(2) == "SUCCESS" else "failed"
            self._end(self._current)

    def _start(self, component: str) -> None:
        name = self._shown.get(component, component)
        self._component = component
        log = self._root / "logs" / f"{name}.log"
        self._current = StepRun(name=name, log=log)
        self._file = log.open("w", encoding="utf-8")
        self._started = time.perf_counter()
        self.steps.append(self._current)
        self._report(self._current)

    def _end(self, step: StepRun) -> None:
        step.seconds = time.perf_counter() - self._started
        if self._file:
            self._file.close()
        self._file, self._current = None, None
        if step.status == "done":
            step.numbers = self._fresh_numbers(self._component)
        self._report(step)

    def _fresh_numbers(self, component: str) -> dict[str, Any]:
        written = self._root.glob(f"artifacts/*/{component}/executor_output.json")
        newest = max(written, key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is None:
            return {}
        artifacts = json.loads(newest.read_text(encoding="utf-8")).get("artifacts", {})
        return _joined(artifact for listed in artifacts.values() for artifact in listed["artifacts"])

    def _cached_numbers(self, key: str) -> dict[str, Any]:
        entry = next(self._root.glob(f"cache/{key}*.json"), None)
        outputs = json.loads(entry.read_text(encoding="utf-8")) if entry else {}
        return _joined(output for output in outputs.values() if isinstance(output, dict))


def _joined(artifacts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The metadata of several artifacts as one mapping."""
    return {name: value for artifact in artifacts for name, value in artifact.get("metadata", {}).items()}


class _Forward(logging.Handler):
    def __init__(self, take: Callable[[str], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(_ANSI.sub("", record.getMessage()))


@contextlib.contextmanager
def _fresh_cache(root: Path, store: str, versions: dict[str, str]) -> Iterator[None]:
    """Drop cache entries made by other code than today's, or gone from the store; note which code makes this run's artifacts.

    Args:
        versions: component name -> version of its code.
    """
    artifacts = root / "artifacts"
    for entry in root.glob("cache/*.json"):
        outputs = json.loads(entry.read_text(encoding="utf-8")).values()
        uri = next((output["uri"] for output in outputs if isinstance(output, dict)), "")
        base = store or str(artifacts)
        if not uri.startswith(f"{base}/"):
            continue
        made, component = uri.removeprefix(f"{base}/").split("/")[:2]
        note = artifacts / made / _CODE_NOTE
        known = note.exists() and storage.read_json(note).get(component) == versions.get(component)
        if not known or (store and not staged.still_there(uri)):
            entry.unlink()
    before = set(artifacts.glob("*"))
    try:
        yield
    finally:
        for made_now in set(artifacts.glob("*")) - before:
            storage.write_json(made_now / _CODE_NOTE, versions)


def _prepare(root: Path) -> None:
    """Make the folder of a run, and see that it can be written: better now than after an hour."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise of_system(error, where=str(root), verb="written") from error


def _tasks(pipeline: Path) -> dict[str, tuple[str, str]]:
    """Task name -> (component name as kfp.local logs it, name to show) of a compiled pipeline."""
    spec = next(yaml.safe_load_all(pipeline.read_text(encoding="utf-8")))
    return {
        name: (task["componentRef"]["name"].removeprefix("comp-"), task["taskInfo"]["name"].replace("-", "_"))
        for name, task in spec["root"]["dag"]["tasks"].items()
    }
