"""What goes wrong on request: answers that are errors, delays, a server that is away, streams that are cut."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.apiserver import answers


@dataclass
class Fault:
    """An answer for the next requests that fit.

    Args:
        method: of HTTP, all when empty. path: a part of the path with its query, all when empty.
        times: so many requests.
        code: 0 lets the request through after `delay_s`, and not before `until` holds.
    """

    code: int
    method: str = ""
    path: str = ""
    times: int = 1
    reason: str = ""
    message: str = ""
    retry_after_s: int | None = None
    delay_s: float = 0.0
    until: Callable[[], bool] = lambda: True

    def fits(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in ("", method) and self.path in path


_REASONS = {403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}
_REASONS |= {503: "ServiceUnavailable", 504: "Timeout"}


@dataclass
class Faults:
    """All faults of a cluster; thread-safe."""

    pending: list[Fault] = field(default_factory=list)
    stream_limits: dict[str, list[int]] = field(default_factory=dict)
    """By 'log' or 'watch': after so many bytes the next streams break off, one number each."""
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Every request that arrived: (method, path with query)."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _gone_until: float = 0.0

    def answer(self, code: int, *, method: str = "", path: str = "", times: int = 1, message: str = "", reason: str = "",
               retry_after_s: int | None = None) -> None:  # fmt: skip
        """The next `times` requests that fit are answered so."""
        self.pending.append(Fault(code, method, path, times, reason, message, retry_after_s))

    def slow(self, seconds: float, *, method: str = "", path: str = "", times: int = 1) -> None:
        """The next `times` requests that fit wait before they are served."""
        self.pending.append(Fault(0, method, path, times, delay_s=seconds))

    def hold(self, until: Callable[[], bool], *, method: str = "", path: str = "", times: int = 1) -> None:
        """The next `times` requests that fit wait until a condition holds."""
        self.pending.append(Fault(0, method, path, times, until=until))

    def gone(self, seconds: float) -> None:
        """For so long, or until it is `back`, every connection is reset, open streams too."""
        self._gone_until = time.monotonic() + seconds

    def back(self) -> None:
        """The server is there again."""
        self._gone_until = 0.0

    def cut(self, stream: str, *after_bytes: int) -> None:
        """The next log streams (`stream` 'log') or watches ('watch') break off after so many bytes each."""
        self.stream_limits.setdefault(stream, []).extend(after_bytes)

    @property
    def is_gone(self) -> bool:
        return time.monotonic() < self._gone_until

    def meet(self, method: str, path: str) -> None:
        """Note a request, and give it its fault. Raises: Refused."""
        with self._lock:
            self.seen.append((method, path))
            fault = next((one for one in self.pending if one.fits(method, path)), None)
            if fault is None:
                return
            fault.times -= 1
        time.sleep(fault.delay_s)
        while not fault.until():
            time.sleep(0.005)
        if fault.code:
            reason = fault.reason or _REASONS.get(fault.code, "")
            message = fault.message or f"{reason}: asked for by the test"
            raise answers.Refused(fault.code, reason, message, retry_after_s=fault.retry_after_s)

    def limit(self, stream: str) -> int | None:
        """After how many bytes a stream that begins now breaks off."""
        with self._lock:
            waiting = self.stream_limits.get(stream)
            return waiting.pop(0) if waiting else None
