"""`make demo`, killed in each of its steps: whatever has ended comes from the cache."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import steps

_LINE = re.compile(r"^ *\d+/(\d+) (\w+) +(cached|[\d.]+ s)", re.MULTILINE)
_ANEW = {name for name, step in steps.STEPS.items() if step.looks_anew}
"""What they read may have changed: they run each time."""


def run_until_a_step(out: Path, killed: set[str]) -> tuple[dict[str, str], str, int]:
    """Run the demo and kill it, children and all, in the first step that was not killed before.

    Returns:
        Step -> "cached" or its seconds of those that ended; the step that was killed, or "" when the run came to its end; the
        number of steps.
    """
    command = [sys.executable, "-m", "pipelines", "demo", "--out", str(out), "--impressions", "6000", "--preset", "quick"]
    start = time.time()
    with (out.parent / "said").open("w+", encoding="utf-8") as said:
        with subprocess.Popen(command, stdout=said, start_new_session=True) as child:
            step = ""
            while child.poll() is None and not step:
                for log in (out / "run" / "logs").glob("*.log"):
                    with contextlib.suppress(FileNotFoundError):
                        if log.stem not in killed and log.stat().st_mtime > start and log.stat().st_size:
                            step = log.stem
                time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        assert step or child.returncode == 0
        said.seek(0)
        lines = _LINE.findall(said.read())
    return {name: what for _, name, what in lines}, step, int(lines[0][0]) if lines else 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_killed_in_each_step(tmp_path: Path) -> None:
    killed: set[str] = set()
    finished: set[str] = set()
    while True:
        ended, step, steps = run_until_a_step(tmp_path / "demo", killed)
        # The run that is killed early may not have come to all of them, but none of them runs again.
        assert all(ended[name] == "cached" for name in (finished & ended.keys()) - _ANEW)
        assert step not in finished - _ANEW
        finished |= ended.keys()  # the step too, where it came to its end before it was killed
        if not step:
            break
        killed.add(step)
    assert len(killed) == steps == len(finished)
    again, step, _ = run_until_a_step(tmp_path / "demo", killed)
    assert not step and {again[name] for name in again.keys() - _ANEW} == {"cached"}
