"""Settings and fixtures for all tests."""

import inspect
import os
import signal
import sys

from hypothesis import HealthCheck, settings

from pipelines import kernels

pytest_plugins = ["tests.support.s3", "tests.support.gcs"]

# A deadline measures how busy the machine is, and so does the time that examples take to be drawn: what has to be fast is
# asserted where it matters. CI draws the same examples each time, as hypothesis' own profile for it does: what a new example
# finds is found by who works on it, and not by who lands something else.
settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("default")

# A shell's background job ignores Ctrl-C, and so would all processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The steps of a run here take the kernels of the images: so do the tests, and what is compiled for one is found by the other.
with kernels.as_in_the_images():
    _compiled_for = {name: os.environ[name] for name in kernels.NUMBA if name in os.environ}
os.environ.update(_compiled_for)


def _stack(context: int = 1) -> list[inspect.FrameInfo]:
    """Who called whom, without the text of the sources.

    kfp asks for the stack at each setting of a task, and reads one name of it. In a worker of xdist some frames are of no file:
    for each of those `inspect.stack` looks through all modules that are loaded, five seconds for one compiled pipeline.
    """
    found, frame = [], sys._getframe(1)
    while frame:
        code = frame.f_code
        found.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        frame = frame.f_back
    return found


inspect.stack = _stack
