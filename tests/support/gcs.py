"""A Google store over real HTTP, on loopback: as much of the JSON API as pyarrow and conditional PUTs need.

Objects have generations, conditions and writes happen at once, and a body may come in one piece, in two (multipart) or by an
upload that goes on (resumable). It checks tokens where it knows some. Google's own servers differ in that they refuse
more than one write a second to one object: `quick` counts those.
"""

import contextlib
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

_WHEN = "2026-11-27T00:00:00.000Z"


@dataclass
class Object:
    """What stands under a name.

    Attributes:
        written: by the monotonic clock.
    """

    body: bytes
    generation: int
    written: float


@dataclass
class Store:
    """One bucket, named `bucket`.

    Attributes:
        tokens: that are good; empty = nobody is asked.
        asked: method, path of each request.
        quick: names of objects that were written again within a second.
        uploads: that go on: name, condition, what has come.
    """

    objects: dict[str, Object] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    quick: list[str] = field(default_factory=list)
    uploads: dict[str, tuple[str, str, bytearray]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    count: int = 0

    def put(self, name: str, body: bytes, condition: str) -> Object | None:
        """Write; None where the generation is another one."""
        with self.lock:
            before = self.objects.get(name)
            if condition and int(condition) != (before.generation if before else 0):
                return None
            if before and time.monotonic() - before.written < 1:
                self.quick.append(name)
            self.count += 1
            self.objects[name] = Object(body, 1_700_000_000_000_000 + self.count, time.monotonic())
            return self.objects[name]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: it would go to standard error."""

    def do_GET(self) -> None:
        if self._refused():
            return
        path, query = self._place()
        if found := re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)/o/(.+)", path):
            self._object(found[1], urllib.parse.unquote(found[2]), query)
        elif found := re.fullmatch(r"/storage/v1/b/([^/]+)/o/?", path):
            self._listed(found[1], query.get("prefix", ""), query.get("delimiter", ""))
        elif (found := re.fullmatch(r"/storage/v1/b/([^/]+)", path)) and found[1] == "bucket":
            self._json(200, {"kind": "storage#bucket", "name": "bucket", "id": "bucket"})
        else:
            self._no_bucket()

    def do_POST(self) -> None:
        body = self._body()
        if self._refused():
            return
        path, query = self._place()
        found = re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path)
        if not found or found[1] != "bucket":
            return self._no_bucket()
        condition = query.get("ifGenerationMatch", "")
        if query["uploadType"] == "resumable":
            number = f"u{len(self.store.uploads)}"
            self.store.uploads[number] = (query.get("name") or json.loads(body)["name"], condition, bytearray())
            at = f"http://{self.headers['Host']}{path}?uploadType=resumable&upload_id={number}"
            return self._send(200, b"", Location=at)
        name = query.get("name", "")
        if query["uploadType"] == "multipart":
            boundary = self.headers["Content-Type"].partition("boundary=")[2].strip("\"'")
            _, facts, content, _ = body.split(b"--" + boundary.encode())
            name = name or json.loads(facts.split(b"\r\n\r\n", 1)[1])["name"]
            body = content.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        self._written(name, body, condition)

    def do_PUT(self) -> None:
        body = self._body()
        _, query = self._place()
        name, condition, sent = self.store.uploads[query["upload_id"]]
        sent += body
        if (self.headers.get("Content-Range") or "/-").rpartition("/")[2] == "*":
            return self._send(308, b"", Range=f"bytes=0-{len(sent) - 1}")
        self._written(name, bytes(sent), condition)

    def do_DELETE(self) -> None:
        if self._refused():
            return
        path, _ = self._place()
        name = urllib.parse.unquote(path.rpartition("/o/")[2])
        with self.store.lock:
            gone = self.store.objects.pop(name, None)
        self._send(204, b"") if gone else self._no_object(name)

    def _place(self) -> tuple[str, dict[str, str]]:
        parts = urllib.parse.urlsplit(self.path)
        self.store.asked.append((self.command, parts.path))
        return parts.path, dict(urllib.parse.parse_qsl(parts.query))

    def _refused(self) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.store.tokens and given not in self.store.tokens:
            self._json(401, {"error": {"code": 401, "message": "Invalid Credentials"}})
            return True
        return False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _object(self, bucket: str, name: str, query: dict[str, str]) -> None:
        if bucket != "bucket":
            return self._no_bucket()
        found = self.store.objects.get(name)
        if found is None:
            return self._no_object(name)
        if query.get("alt") != "media":
            return self._json(200, self._facts(name, found))
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, size = int(span[1]) if span else 0, len(found.body)
        if span and start >= size:
            return self._send(416, b"")
        body = found.body[start : int(span[2]) + 1 if span and span[2] else size]
        headers = {"x-goog-generation": str(found.generation), "x-goog-stored-content-length": str(size)}
        headers |= {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{size}"} if span else {}
        self._send(206 if span else 200, body, **headers)

    def _listed(self, bucket: str, prefix: str, delimiter: str) -> None:
        if bucket != "bucket":
            return self._no_bucket()
        items, folders = [], set[str]()
        with self.store.lock:
            for name, one in sorted(self.store.objects.items()):
                if name.startswith(prefix):
                    head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
                    if cut:
                        folders.add(prefix + head + cut)
                    else:
                        items.append(self._facts(name, one))
        self._json(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)})

    def _facts(self, name: str, found: Object) -> dict[str, Any]:
        return {
            "kind": "storage#object", "name": name, "bucket": "bucket", "id": f"bucket/{name}/{found.generation}",
            "generation": str(found.generation), "metageneration": "1", "size": str(len(found.body)),
            "storageClass": "STANDARD", "timeCreated": _WHEN, "updated": _WHEN, "etag": str(found.generation),
            "contentType": "application/octet-stream",
        }  # fmt: skip

    def _written(self, name: str, body: bytes, condition: str) -> None:
        found = self.store.put(name, body, condition)
        if found is None:
            return self._json(412, {"error": {"code": 412, "message": "At least one of the pre-conditions did not hold."}})
        self._json(200, self._facts(name, found))

    def _no_object(self, name: str) -> None:
        self._json(404, {"error": {"code": 404, "message": f"No such object: bucket/{name}"}})

    def _no_bucket(self) -> None:
        self._json(404, {"error": {"code": 404, "message": "The specified bucket does not exist."}})

    def _json(self, status: int, value: dict[str, Any]) -> None:
        self._send(status, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 308) or body:
            self.send_header("Content-Length", str(len(body)))
        elif status == 308:
            self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 64

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up, or is killed, is nothing to print."""


@contextlib.contextmanager
def served(store: Store) -> Iterator[str]:
    """Serve it on loopback; yields `host:port`."""
    handler = type("Handler", (_Handler,), {"store": store})
    with _Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture
def gcs(bare: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty bucket `gs://bucket`, reachable through the environment."""
    store = Store()
    with served(store) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield store
