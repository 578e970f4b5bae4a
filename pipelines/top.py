"""What a command does at its very top: when it is stopped, and when it fails with whatever there is.

A reader gets one line in each case, never a traceback: what happened, where, and how to go on.
"""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

from tritower import child
from tritower.errors import TritowerError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BROKEN_PIPE = 128 + signal.SIGPIPE


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end. Notes added on its way say what was running and how to go on."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(do: Callable[[], int]) -> int:
    """Do it; its exit status, 1 after an error, 128 + n after signal n."""
    try:
        with _signals():
            return do()
    except TritowerError as error:
        _say(str(error))
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        _say(" ".join([f"Stopped by {by}.", *getattr(stop, "__notes__", [])]))
        return 128 + number
    except BrokenPipeError:
        # Whoever read the output has gone; the interpreter would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - a process's top
        _say(f"{child.explained(error)} {_kept(error)}")
    return 1


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let the first signal that asks for the end raise `Stopped`; the next ones would only disturb the tidying up."""

    def stop(number: int, _: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped(number)

    # What is ignored stays so (nohup); in another thread than the main one no handler may be set.
    ours = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {one: signal.getsignal(one) for one in ours if signal.getsignal(one) != signal.SIG_IGN}
    for one in before:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _kept(error: Exception) -> str:
    """Where the traceback of an exception that is not ours is kept."""
    text = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix="tritower-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return "There is no room for its traceback."
    return f"Its traceback is in {name}."


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be there to read it
        print(f"\n{text}", file=sys.stderr, flush=True)
