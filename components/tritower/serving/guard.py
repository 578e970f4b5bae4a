"""Stands before all doors: who may come in, how often, how much, how slowly. Plain ASGI, since a body must not be read first.

A proxy that takes Authorization for itself, as Kubernetes' API server does, lets `X-Tritower-Token: TOKEN` through.

Open to all are health, figures and descriptions of the model. For the rest a token (`Authorization: Bearer`, or as the
password of `Basic`, which browsers can ask for) or a client's certificate is needed; without either, the server listens on
loopback only.
"""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import os
import re
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tritower.errors import ConfigError, TritowerError
from tritower.serving.config import ServeConfig
from tritower.serving.metrics import FOLDER
from tritower.serving.rate import Rate
from tritower.serving.refusal import LONGEST_ID, Refusal, body, refusal, unexpected
from tritower.serving.service import Service

TOKEN = "TRITOWER_SERVING_TOKEN"  # noqa: S105 - a variable's name
PEER = "tritower.peer"
"""In a scope's state: whether the client showed a certificate of the authority."""
_OPEN = re.compile(r"/metrics|/v2|/v2/health/(live|ready)|/v2/models/[^/]+(/ready)?|/v1/models(/[^/:]+)?")
_ID = re.compile(rf"[\w.:-]{{1,{LONGEST_ID}}}", re.ASCII)
_DISCARD = 16
"""A refused body of so many times the limit is read to its end: a client that still writes would not see why."""
_log = logging.getLogger(__name__)


class Tokens:
    """The bearer tokens that are good.

    Args:
        config: names the file.
    """

    def __init__(self, config: ServeConfig) -> None:
        self._file = Path(config.token_file) if config.token_file else None
        self._seen, self._from_file = 0, list[bytes]()
        self._from_environment = [one.encode() for one in [os.environ.get(TOKEN, "").strip()] if one]
        self.needed = bool(self._file or self._from_environment)
        if self._file and not self._read():
            raise ConfigError("there is no token in the file", where=config.token_file, remedy="Write one a line.")

    def good(self, token: bytes) -> bool:
        """Whether it is one of them."""
        return any(hmac.compare_digest(token, one) for one in (*self._from_environment, *self._read()))

    def _read(self) -> list[bytes]:
        if self._file:
            try:
                changed = self._file.stat().st_mtime_ns
                if changed != self._seen:
                    lines = self._file.read_bytes().splitlines()
                    self._from_file, self._seen = [line.strip() for line in lines if line.strip()], changed
            except OSError as error:  # a mounted secret is absent for a moment while it is replaced
                if not self._from_file:
                    remedy = "Give a file that the server may read."
                    raise ConfigError(
                        f"the tokens cannot be read: {error.strerror}", where=str(self._file), remedy=remedy
                    ) from None
        return self._from_file


def check_open(config: ServeConfig, tokens: Tokens) -> None:
    """Raise ConfigError where anybody on the network could ask."""
    if tokens.needed or config.tls_client_ca or is_loopback(config.host):
        return
    remedy = f"Set token_file, {TOKEN} or tls_client_ca, or listen on 127.0.0.1."
    raise ConfigError("the server would be open to all", where=f"host {config.host}", remedy=remedy)


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Checks a request, reads its body, hands both on, and counts what comes of it.

    Args:
        app: what answers.
        service: for its limits, figures and whether it drains.
        tokens: the good ones.
    """

    def __init__(self, app: ASGIApp, service: Service, tokens: Tokens) -> None:
        self._app, self._service, self._config, self._tokens = app, service, service.config, tokens
        shared = os.environ.get(FOLDER)
        self._rate = Rate(self._config.rate_per_s, self._config.rate_burst, Path(shared, "rates") if shared else None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        sent = headers.get("x-request-id", b"").decode("latin-1")
        request_id = sent if _ID.fullmatch(sent) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        scope = _plain(scope)
        metrics, start, status = self._service.metrics, time.perf_counter(), 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = [(b"x-request-id", request_id.encode("latin-1"))]
                if self._service.draining:
                    more.append((b"connection", b"close"))
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        metrics.in_flight.inc()
        try:
            await self._handled(scope, headers, receive, tell)
        except TritowerError as error:
            await _answer(refusal(error), request_id, tell)
        except Exception:  # noqa: BLE001 - a request's top
            _log.exception("request %s failed", request_id)
            if not status:
                await _answer(unexpected(), request_id, tell)
        finally:
            metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "none")
            metrics.requests.labels(route, str(status or 499)).inc()  # 499: the client is gone
            metrics.seconds.labels(route).observe(time.perf_counter() - start)

    async def _handled(self, scope: Scope, headers: dict[str, bytes], receive: Receive, send: Send) -> None:
        try:
            self._admit(scope, headers)
            content = await self._body(headers, receive)
        except Refusal as error:
            if error.status in (401, 413, 429) and not await self._discarded(headers, receive, error):
                error.headers["Connection"] = "close"
            raise
        rest: Iterable[Message] = ({"type": "http.request", "body": content, "more_body": False},)
        waiting = iter(rest)

        async def replay() -> Message:
            return next(waiting, None) or await receive()

        await self._app(scope, replay, send)

    def _admit(self, scope: Scope, headers: dict[str, bytes]) -> None:
        metrics, path = self._service.metrics, scope["path"]
        client = (scope.get("client") or ("unknown", 0))[0]
        if scope["method"] == "GET" and _OPEN.fullmatch(path):
            return
        wait_s = self._rate.wait_s(client, time.monotonic())
        if wait_s:
            metrics.refused.labels("rate").inc()
            remedy = f"Ask {self._config.rate_per_s:g} times a second at most; try again in {wait_s:.2f} s."
            retry = {"Retry-After": str(int(wait_s) + 1)}
            raise Refusal(429, "too many requests of one client", where=client, remedy=remedy, headers=retry)
        if self._config.tls_client_ca and scope["state"].get(PEER):
            return
        if not (self._tokens.needed or self._config.tls_client_ca):
            return
        own = headers.get("x-tritower-token", b"")
        if self._tokens.needed and self._tokens.good(own or _token(headers.get("authorization", b""))):
            return
        metrics.refused.labels("token").inc()
        what = "the token is not known" if "authorization" in headers else "a token or a client's certificate is needed"
        remedy = "Send `Authorization: Bearer TOKEN`."
        raise Refusal(
            401, what, where="header Authorization", remedy=remedy, headers={"WWW-Authenticate": 'Basic realm="tritower"'}
        )

    async def _body(self, headers: dict[str, bytes], receive: Receive) -> bytes:
        most, within_s = self._config.max_body_bytes, self._config.body_timeout_s
        length = _length(headers)
        if length > most:
            raise self._too_long(length)
        found = bytearray()
        try:
            async with asyncio.timeout(within_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "the client left before its body was whole", where="body")
                    found += message.get("body", b"")
                    if len(found) > most:
                        raise self._too_long(len(found))
                    if not message.get("more_body"):
                        return bytes(found)
        except TimeoutError:
            self._service.metrics.refused.labels("slow").inc()
            remedy = f"Send it within {within_s:g} s."
            raise Refusal(
                408, "the body did not come in time", where="body", remedy=remedy, headers={"Connection": "close"}
            ) from None

    def _too_long(self, length: int) -> Refusal:
        self._service.metrics.refused.labels("size").inc()
        limit = f"max_body_bytes is {self._config.max_body_bytes:,}"
        return Refusal(413, f"the body is too long ({length:,} bytes or more)", where=limit, remedy="Send less.")

    async def _discarded(self, headers: dict[str, bytes], receive: Receive, error: Refusal) -> bool:
        """Read a refused body to its end, so that the client reads the answer; False where it is too much or too slow."""
        left = _DISCARD * self._config.max_body_bytes
        if _length(headers) > left or b"100-continue" in headers.get("expect", b"").lower():
            return False
        try:
            async with asyncio.timeout(min(2.0, self._config.body_timeout_s)):
                while left >= 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body"):
                        return True
        except TimeoutError:
            pass
        return False


def _plain(scope: Scope) -> Scope:
    """A copy of a request's scope, by which the routes find it: HEAD is a GET whose body the server of HTTP leaves out, and a
    path is the same with a slash at its end (RFC 9110, 9.3.2)."""
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "method": method, "path": scope["path"].rstrip("/") or "/"}


def _length(headers: dict[str, bytes]) -> int:
    text = headers.get("content-length", b"0")
    return int(text) if text.isdigit() and len(text) < 20 else 0


def _token(header: bytes) -> bytes:
    kind, _, value = header.partition(b" ")
    if kind.lower() == b"bearer":
        return value.strip()
    if kind.lower() == b"basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


async def _answer(error: Refusal, request_id: str, send: Send) -> None:
    content = body(error, request_id)
    given: dict[str, Any] = {"content-type": "application/json", "content-length": str(len(content))} | error.headers
    headers = [(name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in given.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
