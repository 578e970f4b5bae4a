"""What stores and networks do wrong, against a real S3 server behind a proxy that does it; images/README.md has the table."""

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tritower import storage
from tritower.errors import StorageError

from tests.support.faults import Fault, Proxy, proxy
from tests.support.s3 import client, s3_server

DATA = bytes(range(256)) * 20_000  # 5 MB: one request to fetch, one to send


@pytest.fixture
def between(s3: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The proxy, with the environment pointing to it."""
    with proxy(endpoint) as state:
        monkeypatch.setenv("TRITOWER_S3_ENDPOINT", state.url)
        monkeypatch.setenv("TRITOWER_S3_TIMEOUT_S", "1")
        monkeypatch.setenv("TRITOWER_S3_RETRIES", "2")
        yield state


@pytest.fixture
def object_(s3: str, between: Proxy, tmp_path: Path) -> str:
    """An object of 5 MB."""
    (tmp_path / "data").write_bytes(DATA)
    storage.upload(tmp_path / "data", f"{s3}/data")
    between.seen.clear()
    return f"{s3}/data"


@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_buckets_are_addressed_by_path(
    scheme: str, s3: str, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if scheme == "minio":
        monkeypatch.setenv("MINIO_ENDPOINT", between.url)
        monkeypatch.delenv("TRITOWER_S3_ENDPOINT")
    (tmp_path / "a").write_text("1")
    place = s3.replace("s3://", f"{scheme}://") + "/a"
    storage.upload(tmp_path / "a", place)
    assert storage.fetch(place, tmp_path / "b").read_text() == "1"
    assert storage.list_files(place) == [place]
    assert between.seen
    assert all(one.path.startswith("/bucket") and one.headers["Host"] == between.url[7:] for one in between.seen)


@pytest.mark.parametrize(
    "fault",
    [Fault("status"), Fault("status", status=500), Fault("status", status=429), Fault("drop"), Fault("stall", seconds=2.0),
     Fault("cut", path="/data$"), Fault("cut", path="list-type")],
    ids=["503", "500", "429", "drop", "stall", "cut", "cut-listing"],
)  # fmt: skip
def test_a_passing_fault_is_not_noticed(fault: Fault, object_: str, between: Proxy, tmp_path: Path) -> None:
    between.faults.append(fault)
    assert storage.fetch(object_, tmp_path / "back").read_bytes() == DATA
    assert fault.times == 0
    again = Fault(fault.kind, status=fault.status, seconds=fault.seconds, path="/data$")
    between.faults.append(again)
    store, path = storage.filesystem(object_)
    with storage.reading(object_), store.open_input_stream(path) as stream:
        assert stream.read() == DATA
    assert again.times == 0


def test_an_answer_that_does_not_say_its_length_is_read_to_the_listed_size(
    object_: str, between: Proxy, tmp_path: Path
) -> None:
    """All answers without a length: the first and second end early, which only the listing can tell."""
    between.faults += [Fault("unsized", path="/data$", times=2, share=0.4), Fault("unsized", path="/data$", share=1.0)]
    assert storage.fetch(object_, tmp_path / "back").read_bytes() == DATA
    assert between.count("GET", "/data$") == 3
    assert all(fault.times == 0 for fault in between.faults)


@pytest.mark.parametrize("kind", ["status", "drop"])
def test_an_upload_survives_a_passing_fault(kind: str, s3: str, between: Proxy, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA * 3)  # three parts
    between.faults += [Fault(kind, method="PUT", times=2), Fault(kind, method="POST", path="uploads", times=1)]
    storage.upload(tmp_path / "data", f"{s3}/data")
    assert all(fault.times == 0 for fault in between.faults)
    assert storage.fetch(f"{s3}/data", tmp_path / "back").read_bytes() == DATA * 3


def test_the_waits_grow(object_: str, between: Proxy, tmp_path: Path) -> None:
    between.faults.append(Fault("status", path="data", times=2))
    storage.fetch(object_, tmp_path / "back")
    first, second, third = [one.at for one in between.seen if one.method == "GET" and "data?" not in one.path][:3]
    assert second - first < 0.5 <= 0.9 < third - second


def test_a_download_goes_on_where_it_was_cut(object_: str, between: Proxy, tmp_path: Path) -> None:
    between.faults.append(Fault("cut", path="/data$", share=0.6, times=2))
    assert storage.fetch(object_, tmp_path / "back").read_bytes() == DATA
    ranges = [one.headers.get("Range") for one in between.seen if one.method == "GET" and one.path.endswith("/data")]
    assert len(ranges) == 3 and ranges[0] is None
    assert all(text and 0 < int(text.removeprefix("bytes=").rstrip("-")) < len(DATA) for text in ranges[1:])


def test_a_body_that_always_ends_early_is_never_taken_for_whole(object_: str, between: Proxy, tmp_path: Path) -> None:
    between.faults.append(Fault("cut", path="/data$", share=0.3, times=1000))
    with pytest.raises(StorageError, match=r"the store failed: .*(IncompleteRead|ended after)"):
        storage.fetch(object_, tmp_path / "back")
    with pytest.raises(StorageError, match="the store failed"):
        storage.fetch_tree(object_.rpartition("/")[0], tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    store, path = storage.filesystem(object_)
    with pytest.raises(StorageError, match="the store"), storage.reading(object_), store.open_input_stream(path) as stream:
        stream.read()


def test_an_object_replaced_while_it_is_read_is_an_error(
    object_: str, s3: str, between: Proxy, endpoint: str, tmp_path: Path
) -> None:
    direct = client(endpoint)

    def replace() -> None:
        direct.put_object(Bucket="bucket", Key=f"{s3.removeprefix('s3://bucket/')}/data", Body=DATA[::-1])

    between.faults.append(Fault("cut", path="/data$", then=replace))
    with pytest.raises(StorageError, match="was replaced while it was read"):
        storage.fetch(object_, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("status", times=1000), "the store failed: .*too many 503 error responses"),
        (Fault("stall", seconds=1.5, times=1000), "the store does not answer: .*Read timed out"),
        (Fault("drop", times=1000), "the store failed: .*(RemoteDisconnected|Connection aborted)"),
    ],
    ids=["503", "stall", "drop"],
)
def test_a_lasting_fault_is_named(fault: Fault, said: str, object_: str, between: Proxy, tmp_path: Path) -> None:
    between.faults.append(fault)
    with pytest.raises(StorageError, match=said) as caught:
        storage.fetch(object_, tmp_path / "back")
    assert object_ in str(caught.value) and "Check the endpoint and the network." in str(caught.value)
    with pytest.raises(StorageError, match="the store"):
        storage.list_files(object_.rpartition("/")[0])
    assert not (tmp_path / "back").exists()


def test_a_part_that_never_arrives_leaves_nothing(s3: str, between: Proxy, endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("small, sent first")
    (tmp_path / "tree" / "b").write_bytes(DATA * 3)
    between.faults.append(Fault("status", method="PUT", path="partNumber=2", times=1000))
    with pytest.raises(StorageError, match="the store failed"):
        storage.upload_tree(tmp_path / "tree", s3)
    direct = client(endpoint)
    prefix = s3.removeprefix("s3://bucket/")
    assert direct.list_objects_v2(Bucket="bucket", Prefix=prefix)["KeyCount"] == 0
    assert not direct.list_multipart_uploads(Bucket="bucket", Prefix=prefix).get("Uploads")


def test_memory_does_not_grow_with_the_file(s3: str, tmp_path: Path) -> None:
    """Peak memory of a process that sends and fetches 96 MiB: a few parts above one that moves a byte."""
    assert peak(s3, tmp_path, 96 << 20) - peak(s3, tmp_path, 1) < 64 << 20


def peak(place: str, folder: Path, size: int) -> int:
    """Bytes a process had in memory at most while it sent a file of this size and fetched it again."""
    program = (
        "import resource, sys\n"
        "from tritower import storage\n"
        "storage.upload(sys.argv[1], sys.argv[2])\n"
        "storage.fetch(sys.argv[2], sys.argv[3])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
    )
    with (folder / "big").open("wb") as file:
        file.truncate(size)
    command = [sys.executable, "-c", program, str(folder / "big"), f"{place}/big", str(folder / "back")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (folder / "back").stat().st_size == size
    return int(done.stdout)


# ------------------------------------------------------------------------------------------------------------------- TLS


def test_a_private_ca(bare: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = certificates(tmp_path)
    (tmp_path / "a").write_text("1")
    with s3_server(tmp_path / "log", options=("-c", str(tmp_path / "server.pem"), "-k", str(tmp_path / "server.key"))) as url:
        url = url.replace("http://", "https://")
        client(url, verify=str(ca)).create_bucket(Bucket="bucket")
        monkeypatch.setenv("TRITOWER_S3_ENDPOINT", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("TRITOWER_S3_RETRIES", "1")
        for attempt in (lambda: storage.upload(tmp_path / "a", "s3://bucket/a"), lambda: storage.list_files("s3://bucket/a")):
            with pytest.raises(StorageError, match=r"certificate is not trusted.*s3://bucket/a.*AWS_CA_BUNDLE"):
                attempt()
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ca))
        storage.upload(tmp_path / "a", "s3://bucket/a")
        assert storage.list_files("s3://bucket/a") == ["s3://bucket/a"]
        assert storage.fetch("s3://bucket/a", tmp_path / "b").read_text() == "1"
        monkeypatch.setenv("TRITOWER_S3_CA_FILE", str(tmp_path / "none.pem"))
        with pytest.raises(StorageError, match=r"no such CA file \(in TRITOWER_S3_CA_FILE="):
            storage.list_files("s3://bucket/a")


def certificates(folder: Path) -> Path:
    """A CA of our own (returned) and a certificate for 127.0.0.1 that it signed: server.pem, server.key."""
    import ipaddress

    now = dt.datetime.now(dt.UTC)
    pairs = {}
    for who in ("ca", "server"):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"tritower test {who}")])
        issuer_name, issuer_key = pairs.get("ca", (name, key))
        pairs[who] = (name, key)
        builder = x509.CertificateBuilder(issuer_name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=who == "ca", path_length=None), critical=True)
        if who == "server":
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        signed = builder.sign(issuer_key, hashes.SHA256())
        (folder / f"{who}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
        (folder / f"{who}.key").write_bytes(content)
    assert os.listdir(folder)
    return folder / "ca.pem"
