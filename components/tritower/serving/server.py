"""One process that serves: listens, looks for new ones, ends in order.

A worker is such a process too; `workers.py` gives it a socket, a folder where it says that it is ready, and its word to begin.
"""

import logging
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tritower import __version__
from tritower.errors import ConfigError, of_system
from tritower.serving import connections, standby, watching
from tritower.serving.app import Mount, create_app
from tritower.serving.config import ServeConfig
from tritower.serving.metrics import FOLDER, Metrics
from tritower.serving.service import Service

if TYPE_CHECKING:
    from tritower.serving.holder import Holder

SOCKET = "TRITOWER_SERVING_SOCKET"
"""The listening socket's number, where another process opened it."""
_log = logging.getLogger(__name__)


def run(holder: "Holder", places: Mapping[str, tuple[str, str]], config: ServeConfig, *, mounts: Iterable[Mount] = ()) -> None:
    """Serve what a holder holds until SIGTERM or SIGINT; a worker first waits until it is told to.

    Args:
        holder: with a bundle that is whole and warm; nothing listens before.
        places: of each bundle, by name: where newer ones are looked for, and what `watching.tag` said before it was read.
        config: the server's.
        mounts: more routes.

    Raises:
        ConfigError: the server would be open to all, or a file for TLS cannot be used.
        StorageError: the address is taken.
    """
    own = SOCKET not in os.environ
    if not own:
        places = standby.wait(Path(os.environ[FOLDER]), os.getpid(), holder, places, config.poll_s)
    service = Service(holder, config, Metrics())
    app = create_app(service, mounts=mounts)
    watchers = [watching.Watcher(service, place, seen=seen, name=name) for name, (place, seen) in places.items()]
    settings = connections.settings(app, config)
    try:
        settings.load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        remedy = "Give files in PEM that belong together."
        raise ConfigError(f"TLS cannot be set up: {error}", where="tls_cert, tls_key, tls_client_ca", remedy=remedy) from None
    listener = listen(config) if own else socket.socket(fileno=int(os.environ[SOCKET]))

    def begun() -> None:
        service.metrics.ready.set(1)
        for watcher in watchers:
            service.announce(watcher.name)
            watcher.start()
        if own:
            announce(listener, config)
        else:
            ready_file(Path(os.environ[FOLDER]), os.getpid()).touch()

    def draining() -> None:
        service.draining = True
        service.metrics.ready.set(0)

    server = connections.Server(settings, linger_s=config.linger_s, on_start=begun, on_drain=draining)
    try:
        server.run(sockets=[listener])
    finally:
        for watcher in watchers:
            watcher.stop()
        service.close()
    _log.info("all requests are answered, the server ends")


def listen(config: ServeConfig) -> socket.socket:
    """An open socket at the config's address.

    Raises:
        StorageError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit it. asyncio sets it only where a socket names its protocol; without it the body of each answer waits
    # until the client acknowledges the head, some 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        where = f"host {config.host}, port {config.port}"
        raise of_system(error, where=where, verb="listened at") from None
    listener.set_inheritable(True)
    return listener


def announce(listener: socket.socket, config: ServeConfig) -> None:
    """Print the address on standard output: requests are taken."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"{'https' if config.tls_cert else 'http'}://{host}:{listener.getsockname()[1]}"
    print(address, flush=True)
    _log.info("tritower %s serves at %s", __version__, address)


def ready_file(folder: Path, pid: int) -> Path:
    """The file by which a worker says that it takes requests."""
    return folder / f"ready-{pid}"
