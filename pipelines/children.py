"""The process of each step of a local run: all that it starts ends with the run, and its error comes back as it was raised.

`kfp.local` starts `sh -c 'python -m tritower.child --step kfp.dsl.executor_main ...'`. Here the shell gives way to the
interpreter, which runs KFP's module under `tritower.child`, also for a component that is not made by `tritower._build`.
"""

import contextlib
import functools
import re
import subprocess
from collections.abc import Iterator

from tritower import processes
from tritower.errors import TritowerError

_EXECUTOR = re.compile(r"(\S+) -m (?:tritower\.child (--step )?)?kfp\.dsl\.executor_main")
_UNDER_CHILD = r"exec \1 -m tritower.child \2kfp.dsl.executor_main"


@contextlib.contextmanager
def steps(failures: list[TritowerError]) -> Iterator[None]:
    """While the block runs, `kfp.local.SubprocessRunner` starts steps by `run`.

    Args:
        failures: gets the error of each step that fails.
    """
    from kfp.local import subprocess_task_handler

    original = subprocess_task_handler.run_local_subprocess
    subprocess_task_handler.run_local_subprocess = functools.partial(run, failures=failures)
    try:
        yield
    finally:
        subprocess_task_handler.run_local_subprocess = original


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """While the block runs, `kfp.local` runs a pipeline that holds others as it runs any: up to the first step that fails.

    For these it has another loop, which goes on with whatever does not hang on the failed step, and puts the artifacts of
    a nested pipeline elsewhere.
    """
    from kfp.local.orchestrator import dag_orchestrator, enhanced_dag_orchestrator

    original = enhanced_dag_orchestrator.run_enhanced_dag
    enhanced_dag_orchestrator.run_enhanced_dag = dag_orchestrator.run_dag
    try:
        yield
    finally:
        enhanced_dag_orchestrator.run_enhanced_dag = original


def run(full_command: list[str], env_vars: dict[str, str] | None = None, *, failures: list[TritowerError]) -> int:
    """Run a step's command to its end, its log on standard output; the exit status."""
    command, pipe = processes.program(*under_child(full_command)), subprocess.PIPE
    with processes.started(
        command, environment=env_vars, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as step:
        for line in step.popen.stdout or ():
            print(line, end="")
        print("\n")
        code: int = step.popen.wait()
        if code:
            failures.append(step.failure())
    return code


def under_child(command: list[str]) -> list[str]:
    """A command of KFP's whose shell is replaced by the interpreter that it starts, KFP's module under `tritower.child`."""
    return [_EXECUTOR.sub(_UNDER_CHILD, part) for part in command]
