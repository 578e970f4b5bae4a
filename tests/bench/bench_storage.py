"""Sending a checkpoint of 1 GiB to an S3 server on loopback and fetching it again: CPU seconds and peak memory.

naive: the whole object in memory, in one request each way. peer: boto3's transfer manager.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import timing

SIZE = 1 << 30
KEYS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
PEER = (
    "import boto3, os; client = boto3.client('s3', endpoint_url=os.environ['TRITOWER_S3_ENDPOINT'], region_name='us-east-1')\n"
)
PROGRAMS = {
    "ours": "from tritower import storage\nstorage.upload(source, 's3://bench/big')\nstorage.fetch('s3://bench/big', target)\n",
    "naive": PEER + "client.put_object(Bucket='bench', Key='big', Body=open(source, 'rb').read())\n"
    "open(target, 'wb').write(client.get_object(Bucket='bench', Key='big')['Body'].read())\n",
    "peer": PEER + "client.upload_file(source, 'bench', 'big')\nclient.download_file('bench', 'big', target)\n",
}


@contextlib.contextmanager
def server(log: Path) -> Iterator[str]:
    """moto's S3 server on a free port, with a bucket `bench`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.2)
            boto3.client("s3", endpoint_url=url, **KEYS).create_bucket(Bucket="bench")
            yield url
        finally:
            process.terminate()
            process.wait()


def measure(program: str, folder: Path, url: str, size: int) -> tuple[float, float]:
    """CPU seconds and peak MiB of a process that runs a program on a file of random bytes."""
    source, target = folder / "source", folder / "target"
    with source.open("wb") as file:
        for start in range(0, size, 1 << 24):
            file.write(os.urandom(min(1 << 24, size - start)))
    code = f"source, target = {str(source)!r}, {str(target)!r}\n{program}"
    environment = {"TRITOWER_S3_ENDPOINT": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    used = timing.measured(code, environment=environment)
    assert subprocess.run(["cmp", str(source), str(target)], check=False).returncode == 0
    return used["cpu_s"], used["peak_mib"]


def cases() -> list[dict[str, Any]]:
    """One row; `memory_mib` has the peak of each way."""
    with tempfile.TemporaryDirectory() as scratch:
        found = {}
        for name, program in PROGRAMS.items():
            with server(Path(scratch) / "log") as url:
                found[name] = measure(program, Path(scratch), url, SIZE)
    seconds = {name: value[0] for name, value in found.items()}
    row: dict[str, Any] = {"name": "storage.checkpoint", "unit": "CPU s to send and fetch 1 GiB", "ours": seconds["ours"]}
    row |= {f"ratio_{name}": seconds[name] / seconds["ours"] for name in ("naive", "peer")}
    row["memory_mib"] = {name: round(value[1]) for name, value in found.items()}
    print("  peak memory, MiB:", row["memory_mib"])
    return [row]
