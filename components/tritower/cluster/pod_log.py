"""The log of a pod, followed while it runs: every line once, however often the stream is cut or the container starts again."""

import contextlib
import logging
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any

from tritower.cluster import state
from tritower.cluster.api import Api, Refused, core
from tritower.errors import LaunchError

logger = logging.getLogger(__name__)
_LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) (.*)", re.DOTALL)
_SILENCE_S, _PAUSE_S, _LAST_S = 60.0, 1.0, 20.0
_REMEMBERED, _AGAIN_S = 10_000, 300.0
"""Lines whose times are kept, and seconds of the log that are asked for again."""
_MISSING = b"(lines are missing here: the container started again, and its node keeps the log of one attempt)\n"
_MOST = 8 << 20
"""Bytes of a log that are kept of a failed pod."""


@dataclass
class _Reading:
    """How far the log of one pod has been read."""

    name: str = ""
    uid: str = ""
    container: str = ""

    restarts: int = 0
    """Of the container whose log is being read."""

    whole: bool = False
    """Whether that log was read to its end."""

    last: bytes = b""
    """Time of the line read last."""

    sure: bytes = b""
    """Time of the last line that is surely this container's: the one after its next start is read without a word."""

    recent: deque[bytes] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Times of the lines read last."""


class PodLog:
    """Copies a pod's log to a file, in a thread of its own.

    After a cut it asks for the lines of the last minutes again. Which of them are known is told by their times alone, and none
    is taken for old because it is earlier: a node's clock may be set back. A new pod under the same name may be on another
    node: its log begins at its front. A container that started again has a log of its own; its node keeps the one before, whose
    rest is read first.

    Args:
        server: a connection of its own.
        namespace: of the pod.
        output: gets the lines, without their times.
        label: what every line begins with.
    """

    def __init__(self, server: Api, namespace: str, output: IO[bytes], label: str = "") -> None:
        self.server, self.namespace, self.output = server, namespace, output
        self._label = f"{label}: ".encode() if label else b""
        self._reading = _Reading()
        self._told = 0
        """Restarts that `of` has seen."""
        self._stream: Any = None
        self._closed = False
        self._lock = threading.Lock()
        self._known, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="log", daemon=True)

    def __enter__(self) -> "PodLog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Read what is left, not for ever; nothing is written afterwards."""
        self.finish()
        self._thread.join(_LAST_S)
        with self._lock:
            self._closed = True

    def finish(self) -> None:
        """Read what is left, and no more."""
        self._over.set()
        self._known.set()
        with self._lock:
            stream = self._stream
        if stream is not None:  # of a pod that may run on and say nothing
            with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):
                stream.shutdown()

    def of(self, pod: Mapping[str, Any]) -> None:
        """Follow this pod from now on."""
        name, uid = str(pod["metadata"]["name"]), str(pod["metadata"]["uid"])
        with self._lock:
            if uid != self._reading.uid:
                self._reading = _Reading(name, uid, state.main(pod))
            self._told = state.restarts(pod)
        self._known.set()

    def _follow(self) -> None:
        self._known.wait()
        while not self._over.is_set() and not self._closed:
            self._copy(self._reading, follow=True)
            self._over.wait(_PAUSE_S)
        limit = time.monotonic() + _LAST_S
        while not self._copy(self._reading, follow=False) and time.monotonic() < limit and not self._closed:
            time.sleep(_PAUSE_S)

    def _copy(self, reading: _Reading, *, follow: bool) -> bool:
        """Whether everything that there is has been read."""
        if not reading.name:
            return True
        try:
            pod = self.server.call("GET", core(self.namespace, "pods", reading.name), patience_s=0)
            if pod["metadata"]["uid"] != reading.uid:  # the next one of this name: `of` will tell
                return True
            if state.restarts(pod) > reading.restarts:
                self._copy_earlier(reading, state.restarts(pod))
            reading.sure, reading.whole = reading.last, False
            reading.whole = self._copy_one(reading, reading.last, follow=follow)
            return reading.whole
        except LaunchError as error:  # 400: not started yet; 404: the pod is gone; a cut
            logger.debug("the log of %s: %s", reading.name, error)
            return isinstance(error, Refused) and error.status in (400, 404)

    def _copy_earlier(self, reading: _Reading, restarts: int) -> None:
        """The rest of the attempt before, which the container's last start has ended.

        Raises:
            LaunchError: a cut; it is to be read again.
        """
        behind = restarts - reading.restarts
        if behind > 2 or (behind == 2 and not reading.whole):
            self._write(reading, b"", _MISSING)
        if behind > 1:
            reading.restarts, reading.whole, reading.sure = restarts - 1, False, b""
        try:
            self._copy_one(reading, reading.sure, previous=True)
        except Refused as error:
            if error.status not in (400, 404):
                raise
            if not reading.whole:  # the node has removed it
                self._write(reading, b"", _MISSING)
        reading.restarts = restarts

    def _copy_one(self, reading: _Reading, since: bytes, *, follow: bool = False, previous: bool = False) -> bool:
        """Write the lines that are new; whether that was all of them.

        Raises:
            LaunchError: the stream was cut, or there is none.
        """
        query = {"container": reading.container, "timestamps": True, "follow": follow, "previous": previous}
        query |= {"sinceTime": _before(since) if since else None}
        path = core(self.namespace, "pods", reading.name) + "/log"
        response = self.server.raw("GET", path, query=query, timeout_s=(5, _SILENCE_S))
        if response.status == 204:  # the pod has no node yet
            return True
        with self._lock:
            self._stream = response if follow else None
        if follow and self._over.is_set():
            response.close()
            return False
        known = Counter(reading.recent)
        oldest = min(map(_time, known)) if len(reading.recent) == _REMEMBERED else None
        try:
            for stamp, text in _lines(response):
                if known[stamp]:
                    known[stamp] -= 1
                elif oldest is None or _time(stamp) >= oldest:
                    started_again = follow and self._told > reading.restarts
                    if not self._write(reading, stamp, text) or started_again:
                        return False
            return True
        finally:
            with self._lock:
                self._stream = None

    def _write(self, reading: _Reading, stamp: bytes, text: bytes) -> bool:
        """False where nobody wants it any more."""
        with self._lock:
            if reading is not self._reading or self._closed:
                return False
            try:
                self.output.write(self._label + text)
                self.output.flush()
            except (OSError, ValueError):  # whoever read it is gone
                self._closed = True
                return False
        if stamp:
            reading.recent.append(stamp)
            reading.last = stamp
        return True


class Logs:
    """The logs of several pods in one file.

    Args:
        namespace: of the pods.
        output: gets the lines.
    """

    def __init__(self, namespace: str, output: IO[bytes]) -> None:
        self.namespace, self.output = namespace, output
        self._logs: dict[str, PodLog] = {}

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is left, not for ever."""
        for log in self._logs.values():
            log.finish()
        for log in self._logs.values():
            log.__exit__()

    def of(self, pods: Mapping[str, Mapping[str, Any]]) -> None:
        """Follow these pods from now on, each under its label; those whose label is gone are read to their end.

        A label names one pod after the other, not several.
        """
        for label in self._logs.keys() - pods.keys():
            if label:
                self._logs[label].finish()
        for label, pod in pods.items():
            if label not in self._logs:
                self._logs[label] = PodLog(Api(), self.namespace, self.output, label).__enter__()
            self._logs[label].of(pod)


def whole(server: Api, namespace: str, pod: Mapping[str, Any], *, previous: bool = False) -> bytes:
    """The end of the log of a pod's main container, or of its last attempt's; empty where there is none.

    Raises:
        LaunchError: the server is away.
    """
    import urllib3

    name = pod["metadata"]["name"]
    query = {"container": state.main(pod), "previous": previous, "limitBytes": _MOST, "tailLines": 20_000}
    with contextlib.suppress(Refused, urllib3.exceptions.HTTPError):
        response = server.raw("GET", core(namespace, "pods", name) + "/log", query=query)
        return bytes(response.data or b"")
    return b""


def _lines(response: Any) -> Iterator[tuple[bytes, bytes]]:
    """Time and text of each line; a line without a time is the runtime's word that it has no log.

    Raises:
        LaunchError: the stream was cut.
    """
    import urllib3

    rest = b""
    try:
        while block := response.read1(65_536) if hasattr(response, "read1") else response.read(65_536):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                if found := _LINE.match(line):
                    yield found[1], found[2] + b"\n"
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise LaunchError(f"the log stream was cut: {error}") from error
    finally:
        response.close()
    if found := _LINE.match(rest):
        yield found[1], found[2]


def _before(stamp: bytes) -> str:
    """What to ask for after a cut."""
    return datetime.fromtimestamp(_time(stamp)[0] - _AGAIN_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(stamp: bytes) -> tuple[float, str]:
    """In order of time; fractions of a second may come without their last zeros, and zones may change in summer."""
    text = stamp.decode()
    found = re.fullmatch(r"([^.Z+]+?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text)
    assert found, text
    zone = "+00:00" if found[3] == "Z" else found[3]
    return datetime.fromisoformat(found[1] + zone).timestamp(), (found[2] or "").ljust(9, "0")
