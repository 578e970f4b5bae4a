"""Object stores, against a real S3 server."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import storage
from tritower.engines.protocol import open_engine
from tritower.errors import CredentialsError, StorageError
from tritower.storage import remote

from tests.support.s3 import client, s3_server


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "sub" / "b.bin").write_bytes(bytes(range(256)) * 40_000)
    return folder


def test_a_tree_goes_there_and_back(s3: str, tree: Path, tmp_path: Path) -> None:
    assert storage.upload_tree(tree, s3) == 2
    assert storage.list_files(s3) == [f"{s3}/a.txt", f"{s3}/sub/b.bin"]
    storage.fetch_tree(s3, tmp_path / "back")
    assert (tmp_path / "back" / "a.txt").read_text() == "one"
    assert (tmp_path / "back" / "sub" / "b.bin").read_bytes() == (tree / "sub" / "b.bin").read_bytes()


def test_one_object_keeps_its_name(s3: str, tree: Path, tmp_path: Path) -> None:
    storage.upload_tree(tree / "a.txt", f"{s3}/folder")
    storage.fetch_tree(f"{s3}/folder/a.txt", tmp_path / "back")
    assert sorted(file.name for file in (tmp_path / "back").iterdir()) == [storage.MARK, "a.txt"]


def test_a_prefix_is_not_a_folder(s3: str, tree: Path, tmp_path: Path) -> None:
    storage.upload_tree(tree, f"{s3}/run")
    storage.upload_tree(tree, f"{s3}/run-2")
    storage.fetch_tree(f"{s3}/run", tmp_path / "back")
    assert sorted(file.name for file in (tmp_path / "back").iterdir()) == [storage.MARK, "a.txt", "sub"]


def test_the_same_store_by_the_scheme_minio(s3: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIO_ENDPOINT", os.environ["TRITOWER_S3_ENDPOINT"])
    monkeypatch.delenv("TRITOWER_S3_ENDPOINT")
    place = s3.replace("s3://", "minio://")
    storage.upload_tree(tree, place)
    assert storage.list_files(place) == [f"{place}/a.txt", f"{place}/sub/b.bin"]
    storage.fetch_tree(place, tmp_path / "back")
    assert (tmp_path / "back" / "a.txt").read_text() == "one"


def test_tables_are_read_and_written_in_place(s3: str) -> None:
    table = pa.table({"x": [1, 2, 3]})
    store, path = storage.filesystem(f"{s3}/t.parquet")
    pq.write_table(table, path, filesystem=store)
    assert pq.read_table(path, filesystem=store) == table
    with open_engine() as engine:
        engine.register("t", s3)
        assert engine.rows("SELECT sum(x) AS s FROM t") == [{"s": 6}]


def test_credentials_from_a_mounted_secret(s3: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "accesskey").write_text("mounted\n")
    (secret / "secretkey").write_text("hidden\n")
    monkeypatch.setenv("TRITOWER_SECRET_DIR", str(secret))
    how = remote.access(s3)
    assert (how.access_key, how.secret_key, how.secure) == ("mounted", "hidden", False)
    assert storage.upload_tree(tree, s3) == 2


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("uri", "variable"),
    [
        ("s3://bucket/x", "AWS_ACCESS_KEY_ID"),
        ("gs://bucket/x", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("minio://b/x", "MINIO_ENDPOINT"),
    ],
)
def test_without_credentials_the_variables_are_named(uri: str, variable: str, tmp_path: Path) -> None:
    for attempt in (
        lambda: storage.list_files(uri),
        lambda: storage.fetch_tree(uri, tmp_path / "x"),
        lambda: storage.upload_tree(tmp_path, uri),
    ):
        with pytest.raises(StorageError, match=variable):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_wrong_keys_are_refused(bare: None, tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(tmp_path / "log", INITIAL_NO_AUTH_ACTION_COUNT="1") as url:
        client(url).create_bucket(Bucket="bucket")  # the one action that is allowed to all
        monkeypatch.setenv("TRITOWER_S3_ENDPOINT", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        with pytest.raises(CredentialsError, match=r"refuses the credentials.*s3://bucket/x"):
            storage.list_files("s3://bucket/x")
        with pytest.raises(CredentialsError, match=r"refuses the credentials.*s3://bucket/x"):
            storage.fetch_tree("s3://bucket/x", tmp_path / "back")
        with pytest.raises(CredentialsError, match=r"refuses the credentials.*s3://bucket/x"):
            storage.upload_tree(tree, "s3://bucket/x")
    assert not (tmp_path / "back").exists()


def test_no_bucket_and_nothing_there(s3: str, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="bucket does not exist"):
        storage.upload_tree(tree, "s3://no-such-bucket/x")
    with pytest.raises(StorageError, match="bucket does not exist"):
        storage.fetch_tree("s3://no-such-bucket/x", tmp_path / "back")
    with pytest.raises(StorageError, match="bucket does not exist"):
        storage.list_files("s3://no-such-bucket/x")
    with pytest.raises(StorageError, match="bucket does not exist"):
        storage.list_files("s3://no-such-bucket")
    with pytest.raises(StorageError, match="nothing is there"):
        storage.fetch_tree(f"{s3}/none", tmp_path / "back")
    with pytest.raises(StorageError, match="nothing is there"):
        storage.list_files(f"{s3}/none")
    assert not (tmp_path / "back").exists()


def test_nobody_listens(bare: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITOWER_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("TRITOWER_S3_RETRIES", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(StorageError, match=r"Check the endpoint"):
        storage.fetch_tree("s3://bucket/x", tmp_path / "back")


def test_a_failed_upload_takes_back_what_it_sent(s3: str, tree: Path) -> None:
    (tree / "z").touch()
    os.truncate(tree / "z", 6 << 40)  # holes only; one object may have 5 TiB
    with pytest.raises(StorageError, match="store failed"):
        storage.upload_tree(tree, s3)
    with pytest.raises(StorageError, match="nothing is there"):
        storage.list_files(s3)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://AKIA:s3/cr+et@bucket/x", "s3://***@bucket/x"),
        ("minio://user:s3cret@host/bucket", "minio://***@host/bucket"),
        ("s3://bucket/x?secret_key=s3cret&region=us", "s3://bucket/x?secret_key=***&region=us"),
    ],
)
def test_credentials_in_a_location_are_refused_and_not_repeated(uri: str, shown: str, tmp_path: Path) -> None:
    for attempt in (lambda: storage.is_local(uri), lambda: storage.list_files(uri), lambda: storage.fetch(uri, tmp_path / "x")):
        with pytest.raises(StorageError, match="credentials stand in the location") as caught:
            attempt()
        assert caught.value.where == shown and "cret@" not in str(caught.value) and "s3cret" not in str(caught.value)
    assert storage.local_path("file:///a@b/x?token=1") == Path("/a@b/x?token=1") and storage.is_local("file:///a@b/x?token=1")
    assert storage.Location.parse("s3://bucket/key@home/x").key == "key@home/x"
