"""Small objects of Google storage with conditions, which pyarrow does not have: read with a generation, put only where it is
still that one.

JSON API (cloud.google.com/storage/docs/json_api/v1): `objects.get` with `alt=media`; `objects.insert` with `uploadType=media`
and `ifGenerationMatch`, where 0 means that there is no object. Whoever asks shows a token, which comes from the first of

    STORAGE_EMULATOR_HOST            none is needed
    GOOGLE_APPLICATION_CREDENTIALS,  the key of a service account (a signed claim, RFC 7523), or what `gcloud auth` wrote
    gcloud's own file
    the metadata server              of a machine or pod of Google's (GCE_METADATA_HOST names another)
"""

import base64
import json
import os
import threading
import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritower.errors import CredentialsError
from tritower.storage import remote
from tritower.storage.location import Location

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

_HOST, _METADATA = "https://storage.googleapis.com", "metadata.google.internal"
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_TIMEOUT_S, _EARLY_S = 60.0, 60.0
_KINDS = ("service_account", "authorized_user")


class PassingError(OSError):
    """A request failed for the store's sake; made again, it may succeed."""


def is_able() -> bool:
    """Whether these credentials give a token here; those of other clouds (`external_account`) do not.

    Raises:
        CredentialsError: there are none.
    """
    remote.check_google()
    path = None if remote.google_emulator() else remote.google_key()
    return path is None or _key(path).get("type") in _KINDS


def read(place: Location) -> tuple[bytes, str] | None:
    """The content of an object and its generation; None where there is none. Errors are OSError."""
    response = _asked("GET", f"/storage/v1/b/{place.bucket}/o/{urllib.parse.quote(place.key, safe='')}?alt=media")
    if response.status == 404 and not _lacks_bucket(response):
        return None
    _check(response)
    return response.data, str(response.headers["x-goog-generation"])


def write(place: Location, content: bytes, generation: str) -> bool:
    """Put an object if its generation is this one (empty: if there is none); False where it is not. Errors are OSError."""
    query = {"uploadType": "media", "name": place.key, "ifGenerationMatch": generation or "0"}
    path = f"/upload/storage/v1/b/{place.bucket}/o?{urllib.parse.urlencode(query)}"
    response = _asked("POST", path, body=content, headers={"Content-Type": "application/octet-stream"})
    if response.status == 412 or (response.status == 404 and not _lacks_bucket(response)):
        return False
    _check(response)
    return True


def _asked(method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None) -> "BaseHTTPResponse":
    emulator = remote.google_emulator()
    host = f"http://{emulator}" if emulator else _HOST
    given = {} if emulator else {"Authorization": f"Bearer {_tokens.get()}"}
    return _sent(method, host + path, body=body, headers=given | (headers or {}))


def _sent(method: str, url: str, **more: Any) -> "BaseHTTPResponse":
    from urllib3.exceptions import HTTPError

    try:
        response = _pool().request(method, url, retries=False, **more)
    except HTTPError as error:
        raise PassingError(str(error)) from error
    if response.status in (408, 429) or response.status >= 500:
        raise PassingError(f"HTTP status {response.status}")
    return response


def _lacks_bucket(response: "BaseHTTPResponse") -> bool:
    return b"bucket does not exist" in response.data.lower() or b"no such bucket" in response.data.lower()


def _check(response: "BaseHTTPResponse") -> None:
    if _lacks_bucket(response):
        raise OSError("Bucket does not exist")
    if response.status >= 300:
        raise OSError(f"HTTP status {response.status}: {response.data[:500].decode(errors='replace')}")


_pools: list["PoolManager"] = []


def _pool() -> "PoolManager":
    import urllib3

    if not _pools:
        _pools.append(urllib3.PoolManager(maxsize=10, timeout=urllib3.Timeout(connect=10.0, read=_TIMEOUT_S)))
    return _pools[0]


def _key(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CredentialsError(f"the key file cannot be read: {error}", where=str(path), remedy="Correct the path.") from None
    return found if isinstance(found, dict) else {}


class _Tokens:
    """The token in use, until shortly before its end."""

    def __init__(self) -> None:
        self._lock, self._token, self._ends, self._of = threading.Lock(), "", 0.0, ""

    def get(self) -> str:
        path = remote.google_key()
        with self._lock:
            if time.monotonic() >= self._ends - _EARLY_S or self._of != str(path):
                answer = _granted(path)
                self._token, self._of = str(answer["access_token"]), str(path)
                self._ends = time.monotonic() + float(answer.get("expires_in", 3_600))
            return self._token


_tokens = _Tokens()


def _granted(path: Path | None) -> dict[str, Any]:
    """What a token's issuer answers."""
    if path is None:
        host = os.environ.get("GCE_METADATA_HOST") or _METADATA
        address = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
        response = _sent("GET", address, headers={"Metadata-Flavor": "Google"})
    else:
        key = _key(path)
        uri = str(key.get("token_uri") or "https://oauth2.googleapis.com/token")
        response = _sent("POST", uri, fields=_claim(key, uri, path), encode_multipart=False)
    if response.status >= 300:
        problem = f"Google grants no token: {response.data[:300].decode(errors='replace')}"
        raise CredentialsError(problem, where=str(path or "metadata server"), remedy="Check the key and what it may do.")
    return dict(json.loads(response.data))


def _claim(key: dict[str, Any], uri: str, path: Path) -> dict[str, str]:
    try:
        if key["type"] == "authorized_user":
            fields = {name: str(key[name]) for name in ("client_id", "client_secret", "refresh_token")}
            return fields | {"grant_type": "refresh_token"}
        assertion = _signed(str(key["client_email"]), str(key["private_key"]), uri)
    except (KeyError, ValueError) as error:
        raise CredentialsError(f"the key file is damaged: {error!r}", where=str(path), remedy="Make it again.") from None
    return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}


def _signed(account: str, private_key: str, uri: str) -> str:
    """A claim that holds for an hour, signed by RS256 (RFC 7515)."""
    from Crypto.Hash import SHA256
    from Crypto.PublicKey import RSA
    from Crypto.Signature import pkcs1_15

    now = int(time.time())
    claims = {"iss": account, "scope": _SCOPE, "aud": uri, "iat": now, "exp": now + 3_600}
    message = f"{_base64({'alg': 'RS256', 'typ': 'JWT'})}.{_base64(claims)}"
    signature = pkcs1_15.new(RSA.import_key(private_key)).sign(SHA256.new(message.encode()))
    return f"{message}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _base64(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
