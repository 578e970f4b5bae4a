"""A real TCP server between us and the store that does what networks and stores do: refuse, stall, hang up, stop half way."""

import contextlib
import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass
class Fault:
    """What happens to the next `times` requests that match.

    `kind`: status (answer `status`, nothing done), drop (hang up without an answer), stall (answer after `seconds`), cut (the
    head and the first `share` of the body, then hang up), unsized (the same without saying how long the body is), lost (hang up
    without an answer when it is done).
    """

    kind: str
    method: str = "GET"
    path: str = ""
    times: int = 1
    status: int = 503
    seconds: float = 0.0
    share: float = 0.5
    then: Callable[[], None] = lambda: None
    """Called when it happened."""


@dataclass
class Seen:
    """A request: when, what and with which headers."""

    at: float
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Proxy:
    """The server's address, the requests it has seen and the faults still to come."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def due(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets; one of its times is used up."""
        for fault in self.faults:
            if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def count(self, method: str, path: str = "") -> int:
        """How many requests matched."""
        return sum(one.method == method and re.search(path, one.path) is not None for one in self.seen)


@contextlib.contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """A server on a free port that hands everything on to `upstream`, faults apart."""
    state, target = Proxy(), urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.seen.append(Seen(time.monotonic(), self.command, self.path, dict(self.headers)))
            fault = state.due(self.command, self.path)
            if fault and fault.kind == "stall":
                time.sleep(fault.seconds)
            if fault and fault.kind == "drop":
                self.close_connection = True
                return
            if fault and fault.kind == "status":
                self.answer(fault.status, {"Content-Type": "application/xml"}, BUSY)
                return
            assert target.hostname
            connection = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
                if fault and fault.kind == "lost":
                    self.close_connection = True
                    return
                share = fault.share if fault and fault.kind in ("cut", "unsized") else 1.0
                sized = not fault or fault.kind != "unsized"
                self.answer(answer.status, dict(answer.getheaders()), content, share, sized=sized)
            finally:
                connection.close()
            if fault:
                fault.then()

        def answer(
            self, status: int, headers: dict[str, str], content: bytes, share: float = 1.0, *, sized: bool = True
        ) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            size = headers.get("Content-Length", headers.get("content-length", "0")) if self.command == "HEAD" else len(content)
            if sized:
                self.send_header("Content-Length", str(size))
            self.end_headers()
            self.wfile.write(content[: int(len(content) * share)])
            self.close_connection = share < 1.0 or not sized

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one

        def log_message(self, *_: Any) -> None:
            """Nothing: the test has `seen`."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Clients hang up, too: that is what some tests are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
