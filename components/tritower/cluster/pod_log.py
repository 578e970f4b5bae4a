"""The log of a pod, followed while it runs: every line once, however often the stream is cut."""

import contextlib
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from typing import IO, Any

from tritower.cluster import state
from tritower.cluster.api import Api, Refused, core
from tritower.errors import LaunchError

logger = logging.getLogger(__name__)
_LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) (.*)", re.DOTALL)
_SILENCE_S, _PAUSE_S, _LAST_S = 60.0, 1.0, 20.0
_MOST = 8 << 20
"""Bytes of a log that are kept of a failed pod."""


class PodLog:
    """Copies a pod's log to a file, in a thread of its own.

    The server's time of a line says where to go on after a cut. A new pod under the same name may have another clock: its log
    begins at its front. A container that started again has a log of its own; its node keeps the one before, which is read to
    its end first.

    Args:
        server: a connection of its own.
        namespace: of the pod.
        output: gets the lines, without their times.
        label: what every line begins with.
    """

    def __init__(self, server: Api, namespace: str, output: IO[bytes], label: str = "") -> None:
        self.server, self.namespace, self.output = server, namespace, output
        self._label, self._container = f"{label}: ".encode() if label else b"", ""
        self._pod: tuple[str, str] | None = None
        self._restarts = 0  # of the container whose log is being read
        self._last, self._same = b"", 0  # the time of the last line, and how many lines have it
        self._lock = threading.Lock()
        self._known, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="log", daemon=True)

    def __enter__(self) -> "PodLog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is left of the log of a pod that has ended, not for ever."""
        self.finish()
        self._thread.join(_LAST_S)

    def finish(self) -> None:
        """Read what is left, and no more."""
        self._over.set()
        self._known.set()

    def of(self, pod: Mapping[str, Any]) -> None:
        """Follow this pod from now on."""
        found = (str(pod["metadata"]["name"]), str(pod["metadata"]["uid"]))
        with self._lock:
            self._container = state.main(pod)
            if found != self._pod:
                self._pod, self._last, self._same, self._restarts = found, b"", 0, 0
        self._known.set()

    def _follow(self) -> None:
        self._known.wait()
        while not self._over.is_set():
            self._copy(follow=True)
            self._over.wait(_PAUSE_S)
        self._copy(follow=False)

    def _copy(self, *, follow: bool) -> None:
        pod = self._pod
        if pod is None:
            return
        try:
            restarts = self._restarts_of(pod)
            if restarts > self._restarts:
                self._copy_one(pod, previous=True)
            with self._lock:
                if pod == self._pod:
                    self._restarts = restarts
            self._copy_one(pod, follow=follow)
        except LaunchError as error:  # 400: not started yet; 404: the pod is gone; a cut
            logger.debug("the log of %s: %s", pod[0], error)

    def _restarts_of(self, pod: tuple[str, str]) -> int:
        """How often the container has started again; what is known where another pod has the name by now."""
        found = self.server.call("GET", core(self.namespace, "pods", pod[0]), patience_s=0)
        if found["metadata"]["uid"] != pod[1]:
            return self._restarts
        statuses = found.get("status", {}).get("containerStatuses", [])
        return max((int(one["restartCount"]) for one in statuses if one["name"] == self._container), default=0)

    def _copy_one(self, pod: tuple[str, str], *, follow: bool = False, previous: bool = False) -> None:
        since = self._last.decode() or None
        query = {"container": self._container, "timestamps": True, "follow": follow, "previous": previous, "sinceTime": since}
        skip = self._same
        response = self.server.raw("GET", core(self.namespace, "pods", pod[0]) + "/log", query=query, timeout_s=(5, _SILENCE_S))
        if getattr(response, "status", 200) == 204:  # the pod has no node yet
            return
        for stamp, text in _lines(response):
            with self._lock:
                if pod != self._pod:
                    break
                if _time(stamp) < _time(self._last):
                    continue
                if stamp == self._last and skip:
                    skip -= 1
                    continue
                self._same = self._same + 1 if stamp == self._last else 1
                self._last, skip = stamp, 0
            self.output.write(self._label + text)
            self.output.flush()


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
    """The end of the log of a pod's main container, or of its last attempt's; empty where there is none."""
    name = pod["metadata"]["name"]
    query = {"container": state.main(pod), "previous": previous, "limitBytes": _MOST, "tailLines": 20_000}
    with contextlib.suppress(Refused):
        response = server.raw("GET", core(namespace, "pods", name) + "/log", query=query)
        return bytes(response.data or b"")
    return b""


def _lines(response: Any) -> Iterator[tuple[bytes, bytes]]:
    """Time and text of each line; a line without a time is the runtime's word that it has no log."""
    import urllib3

    rest = b""
    try:
        while block := response.read1(65_536) if hasattr(response, "read1") else response.read(65_536):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                if found := _LINE.match(line):
                    yield found[1], found[2] + b"\n"
    except (urllib3.exceptions.HTTPError, OSError) as error:
        logger.debug("the log stream was cut: %s", error)
        return
    finally:
        response.release_conn()
    if found := _LINE.match(rest):
        yield found[1], found[2]


def _time(stamp: bytes) -> tuple[bytes, bytes]:
    """In order of time; fractions of a second may come without their last zeros."""
    whole_s, _, fraction = stamp.rstrip(b"Z").partition(b".")
    return whole_s, fraction.ljust(9, b"0")
