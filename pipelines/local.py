"""Run a compiled pipeline on this machine: one subprocess per step, no server and no container.

`kfp.local` writes everything, its own messages and what the steps log, to standard output. `StepLog` stands there instead:
each step's output goes to a file of its own, and the reader gets a line per step.

Facts of kfp 2.17 that the code below relies on:
* `Executing task 'x'`, `Task 'x' finished with status S` and `Task x cache hit` are the only marks of progress. The first two
  name the component, the last one the task.
* A step's lines are indented by four spaces; kfp's own lines are not, so that no step can imitate them.
* The cache is asked before each step and told of each step's end: see `cache.py`.
* `workspace_root` is deleted after each run, so none is given: kfp makes one of its own. Each step unpacks its code into a new
  temporary folder, which nobody removes: `temporary_files`.
"""

import contextlib
import io
import json
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tritower.errors import StepError, StorageError, TritowerError, of_system
from tritower.storage import atomic

from pipelines import backend_inputs, children, graph, kernels, staged
from pipelines.containers import honest_exit_codes
from pipelines.version import step_versions

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_MARK = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} - (?:INFO|ERROR) - (.*)$")
_START = re.compile(r"^Executing task '(.+)'$")
_END = re.compile(r"^Task '(.+)' finished with status (SUCCESS|FAILURE)$")
_WARNED = re.compile(r"^(?:\d\d:\d\d:\d\d WARNING|\[KFP Executor \S+ \S+ WARNING\]:) (.+)$")
_CACHED = re.compile(r"^Task (\S+) cache hit \(key=([0-9a-f]+)\)")


@dataclass
class StepRun:
    """What became of one step. `numbers` are the metadata of its artifacts, `warnings` what its log warns of."""

    name: str
    status: str = "running"
    seconds: float = 0.0
    numbers: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    log: Path | None = None


@dataclass
class Outcome:
    """A finished run: the pipeline's outputs by name, of an artifact its location; and the steps in the order they ran."""

    outputs: dict[str, Any]
    steps: list[StepRun]


@contextlib.contextmanager
def log_folder(root: Path) -> Iterator[Path]:
    """`root/logs`; for a run that starts while another one is under way on this root, `root/logs-2` and so on."""
    for number in range(1, 100):
        name = "logs" if number == 1 else f"logs-{number}"
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(atomic.exclusive(root / name, "the logs of a run"))
            except StorageError as error:
                busy = error
                continue
            yield folder
            return
    raise busy


@contextlib.contextmanager
def temporary_files() -> Iterator[None]:
    """Let this process and the steps put temporary files into one folder, which goes when the block ends.

    What a run that was killed left is removed by the next one.
    """
    before = os.environ.get("TMPDIR")
    with atomic.partial(Path(tempfile.gettempdir()).absolute() / "tritower-run") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = None
            os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)


def run(
    pipeline: Path,
    arguments: Mapping[str, Any],
    *,
    root: Path,
    store: str = "",
    use_cache: bool = True,
    containers: Mapping[str, Any] | None = None,
    as_backend: bool = False,
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
        as_backend: hand each step what a Kubeflow backend would (`backend_inputs`).
        report: called when a step starts (status "running") and when it ends ("done", "cached" or "failed").

    Raises:
        StepError: a step failed; the message names it, its error and its log.
        ConfigError: an argument does not have the declared type.
    """
    from kfp import components, local

    backend_inputs.check_arguments(pipeline, arguments)
    _prepare(root)
    failures = list[TritowerError]()
    runner = local.SubprocessRunner(use_venv=False) if containers is None else local.DockerRunner(**containers)
    component = components.load_component_from_file(str(pipeline))
    # A step that fails here fails again, after a backoff of minutes; what retries are for, a node that goes, is not here.
    spec = component.component_spec.implementation.graph
    for holder in (spec.root, *spec.components.values()):
        for each in holder.dag.tasks.values():
            each.ClearField("retry_policy")
    with (
        log_folder(root) as folder,
        StepLog(root=root, logs=folder, tasks=tasks(pipeline), report=report).attached() as log,
        _world(
            pipeline, root, store, failures, in_containers=containers is not None, as_backend=as_backend, use_cache=use_cache
        ),
    ):
        local.init(runner=runner, pipeline_root=str(root / "artifacts"), enable_caching=use_cache)
        try:
            task = component(**arguments)
        except RuntimeError as error:
            raise log.failure(failures) or error from None
        except KeyboardInterrupt as stop:
            stop.add_note(log.how_to_go_on(use_cache=use_cache))
            raise
    outputs = {name: getattr(output, "uri", output) for name, output in task.outputs.items()}
    return Outcome(outputs=outputs, steps=log.steps)


@contextlib.contextmanager
def _world(
    pipeline: Path,
    root: Path,
    store: str,
    failures: list[TritowerError],
    *,
    in_containers: bool,
    as_backend: bool,
    use_cache: bool,
) -> Iterator[None]:
    """While the block runs, `kfp.local` starts steps as a run wants them, and asks its cache; arguments as of `run`."""
    from pipelines import cache

    artifacts = root / "artifacts"
    kept = cache.StepCache(root / "cache", store or str(artifacts), step_versions(pipeline)) if use_cache else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(honest_exit_codes(failures))
        stack.enter_context(children.steps(failures))
        stack.enter_context(children.in_turn())
        # What is entered last is called first: a backend's input is made before `staged` moves its locations.
        if store:
            stack.enter_context(staged.steps(store, artifacts))
        if as_backend:
            stack.enter_context(backend_inputs.steps(pipeline, failures))
        if not in_containers:
            stack.enter_context(kernels.as_in_the_images())
        stack.enter_context(cache.used(kept))
        stack.enter_context(temporary_files())
        yield


class StepLog(io.TextIOBase):
    """Standard output while a pipeline runs: splits it by step and follows progress.

    Args:
        root: the run's folder.
        logs: folder of the logs; `<step>.log` is replaced when its step runs again.
        tasks: task name -> (component name, name to show).
        report: called when a step starts and when it ends.
    """

    def __init__(self, *, root: Path, logs: Path, tasks: dict[str, tuple[str, str]], report: Callable[[StepRun], None]) -> None:
        self.steps: list[StepRun] = []
        self._root, self._logs, self._tasks, self._report = root, logs, tasks, report
        self._shown = dict(tasks.values())
        self._component = ""
        self._current: StepRun | None = None
        self._file: TextIO | None = None
        self._line = ""
        self._started = 0.0

    @contextlib.contextmanager
    def attached(self) -> Iterator["StepLog"]:
        """Take over standard output and the root logger until the block ends."""
        root = logging.getLogger()
        level, handlers = root.level, root.handlers[:]
        root.handlers[:] = [_Forward(self._message)]
        root.setLevel(logging.INFO)
        try:
            with contextlib.redirect_stdout(self), warnings.catch_warnings():
                # Image names without "python" and display names, both harmless in a subprocess.
                warnings.simplefilter("ignore")
                yield self
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
                if self._current and (warned := _WARNED.match(line[4:])):
                    self._current.warnings.append(warned.group(1))
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
        log = self._logs / f"{name}.log"
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
        from pipelines import cache

        return _joined({"metadata": metadata} for metadata in cache.numbers(self._root / "cache", key))


def _joined(artifacts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The metadata of several artifacts as one mapping."""
    return {name: value for artifact in artifacts for name, value in artifact.get("metadata", {}).items()}


class _Forward(logging.Handler):
    def __init__(self, take: Callable[[str], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(_ANSI.sub("", record.getMessage()))


def _prepare(root: Path) -> None:
    """Make the folder of a run, and see that it can be written: better now than after an hour."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise of_system(error, where=str(root), verb="written") from error


def tasks(pipeline: Path) -> dict[str, tuple[str, str]]:
    """Task name -> (component name as kfp.local logs it, name to show) of a compiled pipeline, of those nested in it too."""
    return {task.name: (task.component, task.shown) for task in graph.steps(graph.document(pipeline))}
