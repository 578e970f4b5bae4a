"""How a version is asked."""

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from tritower.deploy import asking
from tritower.errors import LaunchError


def test_a_connection_that_hangs_is_given_up_long_before_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As to a Service that its node does not know yet. The same connection never gets through; the next one does."""
    monkeypatch.setattr(asking, "_CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:  # nobody accepts them, and those that come later get no word
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        endpoint = asking.Direct(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=3600)
        with pytest.raises(LaunchError, match=r"there is no answer: .*timed out"):
            endpoint.ask("/v2/models/tritower")
        for one in waiting:
            one.close()


class Ticking:
    """Calls itself v; each answer takes a second of `now`."""

    where, now = "here", 0.0

    def ask(self, path: str, body: Any = None) -> Any:
        self.now += 1.0
        return {"versions": ["v"]}


def test_the_last_answer_counts_though_the_time_is_over_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Ticking()
    monkeypatch.setattr(asking, "time", SimpleNamespace(monotonic=lambda: one.now))
    asking.answers_as(one, "v", 2.5)
    assert one.now == 3.0
    with pytest.raises(LaunchError, match=r"version v does not answer within 1\.5 s"):
        asking.answers_as(one, "v", 1.5)
