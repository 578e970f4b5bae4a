"""The HTTP side: which resource a path names, who asks, and how answers and streams are written."""

import contextlib
import json
import re
import socket
import struct
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import answers, kinds, logs, proxy, resources, rights, watches
from tests.support.apiserver.answers import Refused
from tests.support.apiserver.store import CLOCK

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]
_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<part>[^/]+))?)?$"
)
_MOST_BYTES = 3 * 2**20
_VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.9", "platform": "linux/amd64"}
_NAMESPACE_PARTS = ("status", "finalize")


class Aborted(Exception):
    """The connection is reset, without an answer or in the middle of one."""


class Server(ThreadingHTTPServer):
    """Serves a cluster on a free port of the loopback."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, cluster: "Cluster") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cluster = cluster
        self.is_closing = False

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closing = True
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error; a fault of the server's own is one of the test."""
        error = sys.exception()
        if error and not isinstance(error, OSError):
            self.cluster.errors.append(error)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 2**16

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The header Date."""
        return super().date_time_string(CLOCK.time() if timestamp is None else timestamp)

    def do_GET(self) -> None:
        self._guarded()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _guarded(self) -> None:
        try:
            self._abort_if_gone()
            self._serve()
        except Refused as refused:
            self._refuse(refused)
        except Aborted:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
        except (BrokenPipeError, ConnectionError):
            self.close_connection = True

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.cluster.faults.meet(self.command, self.path)
        self._abort_if_gone()
        if length > _MOST_BYTES:
            raise Refused(413, "RequestEntityTooLarge", f"Request entity too large: limit is {_MOST_BYTES}")
        path, _, text = self.path.partition("?")
        account = self.server.cluster.rights.of(self.headers.get("Authorization"))
        accept = self.headers.get("Accept") or "*/*"
        if not re.search(r"json|\*/\*|yaml", accept):
            types = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
            raise Refused(406, "NotAcceptable", f"only the following media types are accepted: {types}")
        if path == "/version":
            return self._answer(200, _VERSION)
        if path.endswith(f"/{resources.REVIEWS}") and self.command == "POST":
            return self._answer(201, rights.review(account, json.loads(body)))
        if found := re.match(r"^/(?:api/(v1)|apis/([^/]+)/([^/]+))/?$", path):
            return self._answer(200, self._resources(found[2] or "", found[1] or found[3]))
        query = {key: value.lower() if value in ("True", "False") else value for key, value in urllib.parse.parse_qsl(text)}
        if through := proxy.request(self.command, path, text):
            code, answer, type_ = through.answer(self.server.cluster, account, body, dict(self.headers.items()))
            return self._send(code, answer, type_, [])
        request = self._request(path, query, account, body)
        if request.part == "log":
            code, lines = logs.read(self.server.cluster, request)
            return self._stream("log", lines, code) if request.query.get("follow") == "true" else self._whole(code, lines)
        if request.verb == "watch":
            if self.headers.get("Upgrade") == "websocket":  # as behind kubectl proxy: Java's client then asks for a stream
                return self._send(200, b"", "application/json", [])
            return self._stream("watch", watches.lines(self.server, request))
        code, answer, warnings = resources.serve(self.server.cluster, request)
        return self._answer(code, answer, warnings)

    def _request(self, path: str, query: dict[str, str], account: rights.Account, body: bytes) -> resources.Request:
        found = _PATH.match(urllib.parse.unquote(path))
        if not found:
            raise answers.no_such_path()
        group, version = found["group"] or "", found["core"] or found["version"]
        namespace, plural, name, part = (found[one] or "" for one in ("namespace", "plural", "name", "part"))
        if namespace and not group and plural in _NAMESPACE_PARTS:
            namespace, plural, name, part = "", "namespaces", namespace, plural
        there = {(kind.group, kind.version, kind.plural): kind for kind in self.server.cluster.served()}
        kind = there.get((group, version, plural))
        request = resources.Request(
            method=self.command, kind=kind or kinds.Kind(group, version, plural, ""), namespace=namespace, name=name, part=part,
            query=query, account=account, body=body,
            content_type=(self.headers.get("Content-Type") or "").partition(";")[0],
        ).allowed()  # fmt: skip
        if not kind:  # who may not ask for it does not learn that it is not there
            raise answers.no_such_path()
        return request

    def _resources(self, group: str, version: str) -> Object:
        found = [kind for kind in self.server.cluster.served() if (kind.group, kind.version) == (group, version)]
        if not found:
            raise answers.no_such_path()
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        listed = [{"name": one.plural, "kind": one.kind, "namespaced": one.namespaced, "verbs": verbs} for one in found]
        listed = [one | {"singularName": one["kind"].lower()} for one in listed]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": found[0].api_version, "resources": listed}

    def _answer(self, code: int, answer: Object, warnings: list[str] = []) -> None:  # noqa: B006
        headers = [("Warning", f"299 - {json.dumps(one)}") for one in warnings]
        self._send(code, json.dumps(answer).encode(), "application/json", headers)

    def _refuse(self, refused: Refused) -> None:
        headers = [] if refused.retry_after_s is None else [("Retry-After", str(refused.retry_after_s))]
        if refused.plain:
            self._send(refused.code, refused.plain.encode(), "text/plain; charset=utf-8", headers)
        else:
            self._send(refused.code, json.dumps(refused.status).encode(), "application/json", headers)

    def _whole(self, code: int, lines: Iterator[bytes]) -> None:
        self._send(code, b"".join(lines), "text/plain", [])

    def _send(self, code: int, body: bytes, type_: str, headers: list[tuple[str, str]]) -> None:
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        if code != 204:
            self.send_header("Content-Type", type_)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if code != 204:
            self.wfile.write(body)
        self.wfile.flush()

    def _stream(self, name: str, lines: Iterator[bytes], code: int = 200) -> None:
        """Chunks as they come; an empty one asks whether the stream may go on."""
        limit = self.server.cluster.faults.limit(name)
        self.send_response(code)
        self.send_header("Content-Type", "application/json" if name == "watch" else "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for line in lines:
            self._abort_if_gone()
            if self.server.is_closing:
                raise Aborted
            if limit is not None and len(line) >= limit:
                self._chunk(line[:limit])
                raise Aborted
            limit = None if limit is None else limit - len(line)
            self._chunk(line)
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    def _abort_if_gone(self) -> None:
        if self.server.cluster.faults.is_gone:
            raise Aborted
