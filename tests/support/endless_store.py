"""An object store over real HTTP in which folders of any size stand: what it is asked for is streamed, and counted.

It speaks as much of S3 as the minio client and a conditional PUT need, and checks no signature. What a body is made of does not
matter; that 20 GiB of it would come does.
"""

import contextlib
import hashlib
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_BLOCK = bytes(1 << 20)
_WHEN = "2026-11-27T00:00:00.000Z"


@dataclass(frozen=True)
class Asked:
    """A request: who made it, by access key, what for, and how many bytes of body it got."""

    who: str
    method: str
    key: str
    size: int = 0


@dataclass
class EndlessStore:
    """One bucket: objects that hold something, and `vast` ones, of which only the size is kept."""

    objects: dict[str, bytes] = field(default_factory=dict)
    vast: dict[str, int] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def of(self, who: str) -> list[Asked]:
        """The requests that were made with an access key."""
        return [one for one in self.asked if one.who == who]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: EndlessStore

    def do_GET(self) -> None:
        key, query = self._place()
        if "list-type" in query:
            return self._listed(query["prefix"][0] if "prefix" in query else "")
        if key in self.store.vast:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            return self._streamed(key, self.store.vast[key] - start)
        if key not in self.store.objects:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", key=key)
        body = self.store.objects[key]
        self._answer(200, body, key=key, tag=_tag(body))

    def do_PUT(self) -> None:
        key, _ = self._place()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        there = self.store.objects.get(key)
        wanted = self.headers.get("If-Match")
        if (self.headers.get("If-None-Match") and there is not None) or (wanted and (there is None or _tag(there) != wanted)):
            return self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>", key=key)
        self.store.objects[key] = body
        self._answer(200, b"", key=key, tag=_tag(body))

    def do_DELETE(self) -> None:
        key, _ = self._place()
        self.store.objects.pop(key, None)
        self._answer(204, b"", key=key)

    def log_message(self, *_: Any) -> None:
        """Nothing: it would go to standard error."""

    def _place(self) -> tuple[str, dict[str, list[str]]]:
        parts = urllib.parse.urlsplit(self.path)
        return urllib.parse.unquote(parts.path).strip("/").partition("/")[2], urllib.parse.parse_qs(parts.query)

    def _who(self) -> str:
        _, query = self._place()
        given = self.headers.get("Authorization", "").partition("Credential=")[2] or query.get("X-Amz-Credential", [""])[0]
        return given.partition("/")[0]

    def _listed(self, prefix: str) -> None:
        sizes = {name: len(body) for name, body in self.store.objects.items()} | self.store.vast
        found = "".join(
            f"<Contents><Key>{name}</Key><LastModified>{_WHEN}</LastModified><ETag>&quot;1&quot;</ETag><Size>{size}</Size></Contents>"
            for name, size in sorted(sizes.items())
            if name.startswith(prefix)
        )
        body = f"<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        self._answer(200, body.encode(), key=f"list {prefix}")

    def _answer(self, status: int, body: bytes, *, key: str, tag: str = "") -> None:
        self.store.asked.append(Asked(self._who(), self.command, key, len(body)))
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Fri, 27 Nov 2026 00:00:00 GMT")
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(body)

    def _streamed(self, key: str, size: int) -> None:
        self.send_response(206 if self.headers.get("Range") else 200)
        self.send_header("Content-Length", str(size))
        self.send_header("Last-Modified", "Fri, 27 Nov 2026 00:00:00 GMT")
        self.send_header("ETag", '"vast"')
        self.end_headers()
        sent = 0
        with contextlib.suppress(OSError):  # whoever asked has gone
            while sent < size:
                sent += self.wfile.write(_BLOCK[: size - sent])
        self.store.asked.append(Asked(self._who(), "GET", key, sent))


def _tag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


@contextlib.contextmanager
def served(store: EndlessStore) -> Iterator[str]:
    """Serve it on loopback; yields the endpoint."""
    handler = type("Handler", (_Handler,), {"store": store})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
