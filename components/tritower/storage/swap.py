"""One small file that several processes replace: read it with a tag, replace it only if nobody else has meanwhile.

Readers see the old content or the new one, whole. What a store can do decides what two writers at one time see:

    this machine         a lock on the folder (flock): the second one is told that it came late
    s3://, minio://      one PUT with `If-Match` (`If-None-Match: *` for a new object): likewise. A store that does not know
                         these headers refuses them: it then gets a plain PUT, with a warning, and the last writer wins
    gs://                one PUT with `ifGenerationMatch`: likewise (`google.py`). With credentials of another cloud only a look
                         before one PUT by pyarrow, with a warning: the last of two writers within that instant wins
"""

import datetime as dt
import hashlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tritower.storage import atomic, google, objects, remote
from tritower.storage.google import PassingError
from tritower.storage.location import Location, LocationLike

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_log = logging.getLogger(__name__)
_CHANGED = (404, 409, 412)
"""Gone, written by another at this moment, or another one's already."""
_UNKNOWN = (400, 501)
T = TypeVar("T")


def read(location: LocationLike) -> tuple[bytes, str] | None:
    """The content of a small file and a tag that changes with it; None where there is no file.

    Raises:
        StorageError: it cannot be read.
        CredentialsError: the store refuses the credentials, or there are none.
    """
    place = Location.parse(location)
    if place.is_local:
        with atomic.errors(place.local):
            return _local(place)
    with remote.reading(place):
        return _google(place) if place.scheme == "gs" else _object(place)


def write(location: LocationLike, content: bytes, *, tag: str = "") -> bool:
    """Replace a small file as a whole; False, and nothing is written, where it is not what it was.

    Args:
        location: the file; its folder is made where there is none.
        content: what it is to hold.
        tag: the tag that `read` gave; empty where there was no file.

    Raises:
        StorageError: it cannot be written.
        CredentialsError: the store refuses the credentials, or there are none.
    """
    place = Location.parse(location)
    if place.is_local:
        folder = place.local.parent
        with atomic.errors(place.local):
            folder.mkdir(parents=True, exist_ok=True)
            with atomic.locked(folder):
                if _tag(_local(place)) != tag:
                    return False
                with atomic.file(place.local) as temporary:
                    temporary.write_bytes(content)
        return True
    with remote.reading(place):
        return _write_google(place, content, tag) if place.scheme == "gs" else _write_object(place, content, tag)


def _tag(found: tuple[bytes, str] | None) -> str:
    return found[1] if found else ""


def _local(place: Location) -> tuple[bytes, str] | None:
    try:
        content = place.local.read_bytes()
    except FileNotFoundError:
        return None
    return content, hashlib.sha256(content).hexdigest()


def _object(place: Location) -> tuple[bytes, str] | None:
    from minio.error import S3Error
    from urllib3.exceptions import HTTPError

    client = objects.minio(remote.access(place))

    def get() -> tuple[bytes, str]:
        response = client.get_object(place.bucket, place.key)  # tries again by itself; reading the body does not
        try:
            return response.read(), str(response.headers.get("ETag", ""))
        except HTTPError as error:
            raise PassingError(str(error)) from error
        finally:
            response.close()
            response.release_conn()

    with objects.client_errors():
        try:
            return _patiently(get)
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchObject"):
                return None
            raise


def _write_object(place: Location, content: bytes, tag: str) -> bool:
    condition = {"If-Match": tag} if tag else {"If-None-Match": "*"}
    response = _put(place, content, condition)
    if response.status in _UNKNOWN:
        _log.warning("%s: the store knows no conditional PUT (%d): the last of two writers wins", place, response.status)
        response = _put(place, content, {})
    if response.status in _CHANGED and b"NoSuchBucket" not in response.data:
        return False
    if response.status >= 300:
        raise OSError(f"HTTP status {response.status}: {response.data[:500].decode(errors='replace')}")
    return True


def _put(place: Location, content: bytes, headers: dict[str, str]) -> "BaseHTTPResponse":
    """One PUT. The client's own calls take no conditions: it signs the address, which holds with any other headers.

    The pool must not try again by itself: it would log the address, and with it the signature.
    """
    from urllib3.exceptions import HTTPError

    how = remote.access(place)

    def put() -> "BaseHTTPResponse":
        url = objects.minio(how).get_presigned_url("PUT", place.bucket, place.key, expires=dt.timedelta(minutes=5))
        try:
            response = objects.pool(how).request("PUT", url, body=content, headers=headers, retries=False)
        except HTTPError as error:
            raise PassingError(str(error)) from error
        if response.status in objects.PASSING:
            raise PassingError(f"HTTP status {response.status}")
        return response

    with objects.client_errors():
        return _patiently(put)


def _patiently(act: Callable[[], T]) -> T:
    """Do it again where it fails for the store's sake, as often as the environment says."""
    retries = remote.retries()
    for failures in range(retries + 1):
        try:
            return act()
        except PassingError:
            if failures == retries:
                raise
            time.sleep(objects.pause_s(failures + 1))
    raise AssertionError


def _google(place: Location) -> tuple[bytes, str] | None:
    if google.is_able():
        return _patiently(lambda: google.read(place))
    try:
        with remote.google().open_input_stream(place.path) as stream:
            content = stream.read()
    except FileNotFoundError:
        return None
    return content, hashlib.sha256(content).hexdigest()


def _write_google(place: Location, content: bytes, tag: str) -> bool:
    if google.is_able():
        return _patiently(lambda: google.write(place, content, tag))
    _log.warning("%s: no conditional PUT with these credentials: the last of two writers wins", place)
    if _tag(_google(place)) != tag:
        return False
    with remote.google().open_output_stream(place.path) as stream:
        stream.write(content)
    return True
