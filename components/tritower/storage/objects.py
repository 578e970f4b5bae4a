"""Whole objects to and from a store: downloads that go on where they were cut, uploads in parts.

A request that fails for the store's sake is made again after 0.5, 1, 2, 4... seconds (see `remote.py` for how often). An
object appears under its name when its last byte has arrived, and a file is handed on only with every byte of its object.
Memory is bounded by the parts in flight, not by the object.
"""

import contextlib
import functools
import logging
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tritower.storage.location import Location
from tritower.storage.remote import Access, access, google

if TYPE_CHECKING:
    from minio import Minio
    from urllib3 import PoolManager

_log = logging.getLogger(__name__)
_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 20.0
_BLOCK_BYTES = 1 << 20
PASSING = (429, 500, 502, 503, 504)


def found(location: Location) -> Iterator[tuple[str, Callable[[str], None]]]:
    """(key, function that downloads it to a path) for every object at or under a location; errors are OSError."""
    if location.scheme == "gs":
        yield from _google_objects(location)
        return
    bucket, key, how = location.bucket, location.key, access(location)
    client = minio(how)

    def download(name: str, size: int | None, target: str) -> None:
        with client_errors():
            _download(client, bucket, name, target, listed=size, retries=how.retries)

    with client_errors():
        for entry in client.list_objects(bucket, prefix=key, recursive=True):
            name = str(entry.object_name)
            if not name.endswith("/") and (name == key or name.startswith(f"{key}/" if key else "")):
                yield name, functools.partial(download, name, entry.size)


def _google_objects(location: Location) -> Iterator[tuple[str, Callable[[str], None]]]:
    from pyarrow.fs import FileSelector, FileType, LocalFileSystem, copy_files

    store = google()

    def download(source: str, target: str) -> None:
        copy_files(source, target, source_filesystem=store, destination_filesystem=LocalFileSystem())

    info = store.get_file_info(location.path)
    below = FileSelector(location.path, recursive=True, allow_not_found=True)
    for entry in [info] if info.type == FileType.File else store.get_file_info(below):
        if entry.type == FileType.File:
            yield entry.path.partition("/")[2], functools.partial(download, entry.path)


def writers(location: Location) -> tuple[Callable[[str, Path], None], Callable[[str], None]]:
    """(put(key, file), remove(key)) for the bucket of a location; errors are OSError."""
    bucket = location.bucket
    if location.scheme == "gs":
        from pyarrow.fs import LocalFileSystem, copy_files

        store = google()

        def put_google(name: str, file: Path) -> None:
            copy_files(str(file), f"{bucket}/{name}", source_filesystem=LocalFileSystem(), destination_filesystem=store)

        def remove_google(name: str) -> None:
            store.delete_file(f"{bucket}/{name}")

        return put_google, remove_google
    client = minio(access(location))

    def put(name: str, file: Path) -> None:
        with client_errors():
            client.fput_object(bucket, name, str(file))

    def remove(name: str) -> None:
        with client_errors():
            client.remove_object(bucket, name)

    return put, remove


def _download(client: "Minio", bucket: str, key: str, target: str, *, listed: int | None, retries: int) -> None:
    """Copy an object to a file; an answer that ends early is continued from where it was cut.

    Args:
        listed: bytes that the store's list of objects gives, for an answer that does not say its length.

    Raises:
        OSError: the object changed meanwhile.
        HTTPError: the answers ended early more than `retries` times.
    """
    from urllib3.exceptions import HTTPError

    with Path(target).open("wb") as file:
        etag, failures = "", 0
        while True:
            response = client.get_object(bucket, key, offset=file.tell())
            try:
                if etag and response.headers.get("ETag") != etag:
                    raise OSError(f"the object {key!r} was replaced while it was read")
                etag = response.headers.get("ETag", "")
                size = _size(response.headers.get("Content-Length"), file.tell(), listed, key)
                for block in response.stream(_BLOCK_BYTES):
                    file.write(block)
                if file.tell() == size:
                    return
                raise HTTPError(f"the answer ended after {file.tell()} of {size} bytes")
            except HTTPError as error:
                failures += 1
                if failures > retries:
                    raise
                _log.warning("%s/%s was cut after %d bytes, trying again: %s", bucket, key, file.tell(), error)
                time.sleep(pause_s(failures) * random.uniform(0.5, 1))
            finally:
                response.close()
                response.release_conn()


def pause_s(failures: int) -> float:
    """Seconds before a request is made again that has failed so often, at least once."""
    return min(_BACKOFF_S * 2.0 ** (failures - 1), _LONGEST_BACKOFF_S)


def _size(length: str | None, start: int, listed: int | None, key: str) -> int:
    """Bytes of a whole object, from the length of an answer that begins at `start`, else from the list of objects."""
    if length is not None:
        return start + int(length)
    if listed is None:
        raise OSError(f"neither the answer nor the list of objects says how long {key!r} is")
    return listed


@functools.cache
def pool(how: Access) -> "PoolManager":
    """Connections to a store, by which a request that fails for the store's sake is made again."""
    import urllib3

    return urllib3.PoolManager(
        maxsize=10,  # minio sends the parts of a large object by several threads
        timeout=urllib3.Timeout(connect=min(10.0, how.timeout_s), read=how.timeout_s),
        # POST starts and ends an upload in parts: both may be sent twice.
        retries=urllib3.Retry(
            total=how.retries, backoff_factor=_BACKOFF_S, backoff_max=_LONGEST_BACKOFF_S, status_forcelist=PASSING,
            allowed_methods=None,
        ),
        cert_reqs="CERT_REQUIRED",
        ca_certs=how.ca_file or None,
    )  # fmt: skip


@functools.cache
def minio(how: Access) -> "Minio":
    """The client of a store."""
    from minio import Minio
    from minio.credentials.providers import AWSConfigProvider, ChainedProvider, IamAwsProvider

    static = bool(how.access_key) or how.anonymous
    return Minio(
        how.endpoint or "s3.amazonaws.com",
        access_key=how.access_key or None,
        secret_key=how.secret_key or None,
        session_token=how.session_token or None,
        secure=how.secure,
        region=how.region or None,
        credentials=None if static else ChainedProvider([AWSConfigProvider(), IamAwsProvider()]),
        http_client=pool(how),
    )


@contextlib.contextmanager
def client_errors() -> Iterator[None]:
    """The minio client's errors as OSError, which is what pyarrow raises."""
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (MinioException, HTTPError, ValueError) as error:
        raise OSError(str(error)) from error
