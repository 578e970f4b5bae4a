"""Clients that ask a server all the time, each on a kept connection of its own, and note what came of it."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Asked:
    """One request: when it began and ended, what came back, or the error."""

    began: float
    ended: float
    status: int = 0
    answer: dict[str, Any] = field(default_factory=dict)
    closes: bool = False
    error: str = ""


class Visitors:
    """Threads that ask until the block ends, or until an answer ends their connection where `once` is set.

    Args:
        address: of the server.
        count: of clients.
        path, body: what they ask.
        once: stop after an answer that says `Connection: close`, as a client behind a load balancer would go elsewhere.
    """

    def __init__(self, address: str, count: int, *, path: str = "/rank", body: Any = None, once: bool = False) -> None:
        self.asked: list[Asked] = []
        self._address, self._path, self._body, self._once = address, path, body or {"query": "nurse"}, once
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def __enter__(self) -> "Visitors":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def join(self) -> None:
        """Wait until all have stopped."""
        for thread in self._threads:
            thread.join(240)

    @property
    def failed(self) -> list[Asked]:
        """Requests without an answer, or with one that is no success."""
        return [one for one in self.asked if one.error or one.status != 200]

    def _ask(self) -> None:
        with httpx.Client(base_url=self._address, timeout=120) as client:
            while not self._ended.is_set():
                one = Asked(time.monotonic(), 0.0)
                try:
                    answer = client.post(self._path, json=self._body)
                    one.status, one.answer = answer.status_code, answer.json()
                    one.closes = answer.headers.get("connection") == "close"
                except httpx.HTTPError as error:
                    one.error = repr(error)
                one.ended = time.monotonic()
                self.asked.append(one)
                if self._once and (one.closes or one.error):
                    return
