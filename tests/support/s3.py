"""A real S3 server on loopback: moto's, as a process of its own."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritower import processes

_SERVER = """
import threading
from moto import server

plain, lock = server.run_simple, threading.Lock()

def run(host, port, app, **more):
    def atomic(environ, start):
        if "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ:
            with lock:
                return app(environ, start)
        return app(environ, start)

    plain(host, port, atomic, **more)

server.run_simple = run
server.main()
"""
"""moto looks at a condition and then writes; a store does both at once."""


@contextlib.contextmanager
def s3_server(log: Path, host: str = "127.0.0.1", options: tuple[str, ...] = (), **environment: str) -> Iterator[str]:
    """Start the server on a free port; yield its endpoint."""
    port = processes.free_port()
    command = [sys.executable, "-c", _SERVER, "-H", host, "-p", str(port), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | environment)
        try:
            deadline = time.monotonic() + 240
            while True:
                with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
                    break
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield f"http://{host}:{port}"
        finally:
            process.terminate()
            process.wait()


def client(endpoint: str, **options: Any) -> Any:
    """boto3's client, past all that is ours."""
    import boto3  # not for the many tests that need no store

    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys, **options)


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with one bucket, for all tests of this process."""
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as url:
        client(url).create_bucket(Bucket="bucket")
        yield url


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that says nothing about any object store."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "MINIO_", "TRITOWER_", "GOOGLE_", "GCE_", "STORAGE_")) or name == "KUBERNETES_SERVICE_HOST":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def s3(bare: None, endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An empty folder on the server, reachable through the environment."""
    monkeypatch.setenv("TRITOWER_S3_ENDPOINT", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return f"s3://bucket/{request.node.name.replace('[', '-').replace(']', '')}"
