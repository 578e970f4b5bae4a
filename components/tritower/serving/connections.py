"""uvicorn with what it lacks: time limits for headers, certificates of clients, and an end that finishes kept connections.

uvicorn closes its listener and all idle connections at SIGTERM: a request that is on its way into one of them is lost. Here
the listener stays for `linger_s`; meanwhile every answer says `Connection: close`, and clients come back through the load
balancer, which sends them to another server. Then uvicorn's own end follows: answers that are not finished get `drain_s`.
"""

import asyncio
import logging
import signal
import ssl
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tritower.serving.config import ServeConfig
from tritower.serving.guard import PEER
from tritower.serving.refusal import Refusal, body

_log = logging.getLogger(__name__)


def timed(header_timeout_s: float) -> type[H11Protocol]:
    """A protocol that closes a connection whose next request's headers take too long.

    uvicorn's own timer starts after an answer only, and ends at the first byte of the next request.
    """

    class Timed(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            secure: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
            self.app_state = self.app_state | {PEER: bool(secure and secure.getpeercert())}
            self._await_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._await_headers()
            else:
                self._came()

        def connection_lost(self, exc: Exception | None) -> None:
            self._came()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            remedy = "Send HTTP/1.1; headers may have 16 KiB in all."
            content = body(Refusal(400, msg.rstrip("."), where="request", remedy=remedy), "")
            headers = [("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")]
            events: list[Any] = [h11.Response(status_code=400, headers=headers, reason=b"Bad Request"), h11.Data(data=content)]
            for event in (*events, h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _await_headers(self) -> None:
            if self._late is None:
                self._late = self.loop.call_later(header_timeout_s, self._too_late)

        def _came(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _too_late(self) -> None:
            self._late = None
            if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
                self.transport.close()

    return Timed


def settings(app: Any, config: ServeConfig) -> uvicorn.Config:
    """uvicorn's own settings. No access log: searches are personal data, and the figures have the counts."""
    # Where uvicorn declares an int it takes any number.
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        http=timed(config.header_timeout_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(config.trusted_proxies),
        forwarded_allow_ips=list(config.trusted_proxies),
        timeout_keep_alive=config.keep_alive_s,  # type: ignore[arg-type]
        timeout_graceful_shutdown=config.drain_s,  # type: ignore[arg-type]
        ssl_certfile=config.tls_cert or None,
        ssl_keyfile=config.tls_key or None,
        ssl_ca_certs=config.tls_client_ca or None,
        # Optional, since a probe of Kubernetes has none; the guard asks for it where it matters.
        ssl_cert_reqs=ssl.CERT_OPTIONAL if config.tls_client_ca else ssl.CERT_NONE,
    )


class Server(uvicorn.Server):
    """uvicorn's server with an end in two steps; a second signal goes straight to the second one.

    Args:
        config: uvicorn's.
        linger_s: length of the first step; less where no connection is open.
        on_start: called when requests are taken.
        on_drain: called when the first step begins.
    """

    def __init__(
        self, config: uvicorn.Config, *, linger_s: float, on_start: Callable[[], None], on_drain: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._linger_s, self._on_start, self._on_drain = linger_s, on_start, on_drain
        self._until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end; the signal is not raised again afterwards, so that an orderly end has the status 0."""
        if self._until is not None:
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True
            return
        self._until = time.monotonic() + self._linger_s
        self._on_drain()

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets=sockets)
        self._on_start()

    async def on_tick(self, counter: int) -> bool:
        """Whether the second step begins; asked ten times a second."""
        if self._until is not None and (time.monotonic() >= self._until or not self.server_state.connections):
            self.should_exit = True
        return await super().on_tick(counter)
