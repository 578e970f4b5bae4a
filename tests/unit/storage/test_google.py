"""Google storage, against a store that speaks its API: folders by pyarrow, conditions and tokens by ourselves."""

import base64
import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tritower import storage
from tritower.errors import CredentialsError, StorageError
from tritower.storage import google

from tests.support.gcs import Store


def test_a_tree_goes_there_and_back(gcs: Store, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a.txt").write_text("one")
    (tree / "sub" / "b.bin").write_bytes(bytes(range(256)) * 40_000)
    assert storage.upload_tree(tree, "gs://bucket/run") == 2
    storage.upload_tree(tree / "a.txt", "gs://bucket/run-2")
    assert storage.list_files("gs://bucket/run") == ["gs://bucket/run/a.txt", "gs://bucket/run/sub/b.bin"]
    storage.fetch_tree("gs://bucket/run", tmp_path / "back")
    assert (tmp_path / "back" / "sub" / "b.bin").read_bytes() == (tree / "sub" / "b.bin").read_bytes()
    storage.remove("gs://bucket/run")
    assert storage.names("gs://bucket/run") == [] and storage.names("gs://bucket/run-2") == ["run-2/a.txt"]


def test_a_bucket_that_is_not_there_is_named(gcs: Store) -> None:
    for attempt in (lambda: storage.read_small("gs://none/x"), lambda: storage.swap_small("gs://none/x", b"1")):
        with pytest.raises(StorageError, match="bucket does not exist"):
            attempt()


class Issuer(ThreadingHTTPServer):
    """Grants tokens to whoever shows what it should, as Google's token and metadata servers do."""

    daemon_threads = True
    public: Any = None
    granted = 0

    def grants(self, method: str, path: str, headers: Any, body: bytes) -> bool:
        fields = dict(urllib.parse.parse_qsl(body.decode()))
        if method == "GET":
            return bool(headers.get("Metadata-Flavor") == "Google") and path.endswith("/service-accounts/default/token")
        if fields["grant_type"] == "refresh_token":
            return fields == {"grant_type": "refresh_token", "client_id": "i", "client_secret": "s", "refresh_token": "r"}
        head, claims, signature = fields["assertion"].split(".")
        padded = base64.urlsafe_b64decode(signature + "==")
        self.public.verify(padded, f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
        told = json.loads(base64.urlsafe_b64decode(claims + "=="))
        return bool(told["iss"] == "robot@project" and told["exp"] - told["iat"] == 3_600 and "devstorage" in told["scope"])


class _Asked(BaseHTTPRequestHandler):
    server: Issuer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        good = self.server.grants(self.command, self.path, self.headers, body)
        self.server.granted += good
        answer = {"access_token": "good", "expires_in": 3_600} if good else {"error": "invalid_grant"}
        self.send_response(200 if good else 400)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    do_POST = do_GET


@pytest.fixture
def issuer(gcs: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """It, and the store asked as Google's own: with tokens."""
    with Issuer(("127.0.0.1", 0), _Asked) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        import os

        monkeypatch.setattr(google, "_HOST", f"http://{os.environ['STORAGE_EMULATOR_HOST']}")
        monkeypatch.setattr(google, "_tokens", google._Tokens())
        monkeypatch.delenv("STORAGE_EMULATOR_HOST")
        gcs.tokens = {"good"}
        yield server
        server.shutdown()


def key_file(path: Path, monkeypatch: pytest.MonkeyPatch, **key: str) -> None:
    path.write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))


@pytest.mark.parametrize("kind", ["service_account", "authorized_user", "metadata"])
def test_each_kind_of_credentials_gets_a_token(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    address = f"127.0.0.1:{issuer.server_port}"
    if kind == "metadata":
        monkeypatch.setenv("GCE_METADATA_HOST", address)
    elif kind == "authorized_user":
        more = {"client_id": "i", "client_secret": "s", "refresh_token": "r", "token_uri": f"http://{address}/token"}
        key_file(tmp_path / "key.json", monkeypatch, type=kind, **more)
    else:
        private = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        issuer.public = private.public_key()
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        more = {"client_email": "robot@project", "private_key": private.private_bytes(*form).decode()}
        key_file(tmp_path / "key.json", monkeypatch, type=kind, token_uri=f"http://{address}/token", **more)
    assert storage.swap_small("gs://bucket/x", b"1")
    found = storage.read_small("gs://bucket/x")
    assert found and found[0] == b"1" and not storage.swap_small("gs://bucket/x", b"2")
    assert issuer.granted == 1, "one token served all"


def test_bad_keys_are_refused_by_name(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"http://127.0.0.1:{issuer.server_port}/token"
    more = {"client_id": "i", "client_secret": "s", "token_uri": uri}
    key_file(tmp_path / "key.json", monkeypatch, type="authorized_user", refresh_token="old", **more)
    with pytest.raises(CredentialsError, match=r"grants no token.*invalid_grant.*key\.json"):
        storage.read_small("gs://bucket/x")
    key_file(tmp_path / "key.json", monkeypatch, type="authorized_user", **more)
    with pytest.raises(CredentialsError, match=r"damaged: KeyError\('refresh_token'\)"):
        storage.read_small("gs://bucket/x")
    (tmp_path / "key.json").write_text("{")
    with pytest.raises(CredentialsError, match="cannot be read"):
        storage.read_small("gs://bucket/x")
