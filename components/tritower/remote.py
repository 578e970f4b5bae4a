"""Object stores: where they are, who may use them, and what they say when they refuse.

Where a store is and who may use it comes from the environment, never from a parameter:

    TRITOWER_S3_ENDPOINT, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL    `http://host:port` of an S3 store other than AWS
    MINIO_ENDPOINT                                                 the same for minio:// alone
    AWS_REGION, AWS_DEFAULT_REGION                                 region; us-east-1 with an endpoint of one's own
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN    credentials
    TRITOWER_SECRET_DIR                                            a mounted Secret with `accesskey` and `secretkey`, or with
                                                                   files named as the variables above
    AWS_PROFILE, ~/.aws/credentials, AWS_WEB_IDENTITY_TOKEN_FILE,  the AWS SDK's own ways, workload identity among them
    AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI
    TRITOWER_S3_CREDENTIALS                                        `anonymous` for public buckets, `instance` for a
                                                                   virtual machine's role
    GOOGLE_APPLICATION_CREDENTIALS, GCE_METADATA_HOST              Google; on a cluster, workload identity
    STORAGE_EMULATOR_HOST                                          `host:port` of a Google storage emulator
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tritower.errors import CredentialsError, StorageError

if TYPE_CHECKING:
    from minio import Minio
    from pyarrow.fs import FileSystem

_SDK_VARIABLES = (
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)
# What stores say when they refuse: pyarrow passes on the AWS SDK's error names, minio the codes of the S3 protocol.
_REFUSED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_SIGNATURE", "EXPIRED_TOKEN",
            "HTTP response code 403", "HTTP status 403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch",
            "ExpiredToken", "InvalidToken", "PERMISSION_DENIED", "UNAUTHENTICATED", "Unauthenticated")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Access:
    """How to reach an S3 store. An empty endpoint is AWS; empty keys leave the search for them to the AWS SDK."""

    endpoint: str
    secure: bool
    region: str
    access_key: str
    secret_key: str
    session_token: str
    anonymous: bool


def scheme(uri: str | Path) -> str:
    """`file`, `s3`, `minio` or `gs`.

    Raises:
        StorageError: another scheme.
    """
    head, separator, _ = str(uri).partition("://")
    name = head.lower() if separator else "file"
    if name not in ("file", "s3", "minio", "gs"):
        raise StorageError(f"unknown scheme {head!r}", where=str(uri), remedy="Use a path, file://, s3://, minio:// or gs://.")
    return name


def split(uri: str | Path) -> tuple[str, str]:
    """Bucket and key of a remote location."""
    bucket, _, key = str(uri).partition("://")[2].rstrip("/").partition("/")
    return bucket, key


def filesystem(uri: str | Path) -> "FileSystem":
    """The pyarrow file system of a remote location.

    Raises:
        CredentialsError: there are no credentials for it.
    """
    return _google() if scheme(uri) == "gs" else _s3(access(uri))


def explained(error: OSError, uri: str | Path) -> OSError:
    """What a store said, as an error of ours that names the location and the remedy."""
    text = str(error).splitlines()[0]
    if any(word in str(error) for word in _REFUSED):
        return CredentialsError(
            f"the store refuses the credentials: {text}", where=str(uri), remedy="Check the keys and what they may do."
        )
    if any(word in str(error) for word in ("NO_SUCH_BUCKET", "NoSuchBucket", "Bucket does not exist")):
        return StorageError("the bucket does not exist", where=str(uri), remedy="Check its name and the endpoint.")
    return StorageError(f"the store failed: {text}", where=str(uri), remedy="Check the endpoint and the network.")


def objects(uri: str | Path) -> Iterator[tuple[str, Callable[[str], None]]]:
    """(key, function that downloads it to a path) for every object at or under a location; errors are OSError."""
    bucket, key = split(uri)
    if scheme(uri) == "gs":
        yield from _google_objects(uri, key)
        return
    client = _minio(access(uri))

    def download(name: str, target: str) -> None:
        with _minio_errors():
            client.fget_object(bucket, name, target)

    with _minio_errors():
        for found in client.list_objects(bucket, prefix=key, recursive=True):
            name = str(found.object_name)
            if not name.endswith("/") and (name == key or name.startswith(f"{key}/" if key else "")):
                yield name, functools.partial(download, name)


def _google_objects(uri: str | Path, key: str) -> Iterator[tuple[str, Callable[[str], None]]]:
    from pyarrow.fs import FileSelector, FileType, LocalFileSystem, copy_files

    store, path = _google(), str(uri).partition("://")[2].rstrip("/")

    def download(source: str, target: str) -> None:
        copy_files(source, target, source_filesystem=store, destination_filesystem=LocalFileSystem())

    info = store.get_file_info(path)
    found = (
        [info] if info.type == FileType.File else store.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    )
    for entry in found:
        if entry.type == FileType.File:
            yield entry.path.partition("/")[2], functools.partial(download, entry.path)


def writers(uri: str | Path) -> tuple[Callable[[str, Path], None], Callable[[str], None]]:
    """(put(key, file), remove(key)) for the bucket of a location; errors are OSError."""
    bucket, _ = split(uri)
    if scheme(uri) == "gs":
        from pyarrow.fs import LocalFileSystem, copy_files

        store = _google()

        def put_google(name: str, file: Path) -> None:
            copy_files(str(file), f"{bucket}/{name}", source_filesystem=LocalFileSystem(), destination_filesystem=store)

        def remove_google(name: str) -> None:
            store.delete_file(f"{bucket}/{name}")

        return put_google, remove_google
    client = _minio(access(uri))

    def put(name: str, file: Path) -> None:
        with _minio_errors():
            client.fput_object(bucket, name, str(file))

    def remove(name: str) -> None:
        with _minio_errors():
            client.remove_object(bucket, name)

    return put, remove


def access(uri: str | Path) -> Access:
    """How to reach the S3 store behind an s3:// or minio:// location, from the environment.

    Raises:
        CredentialsError: no credentials are set.
        StorageError: a minio:// location without an endpoint.
    """
    names = ["TRITOWER_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
    if scheme(uri) == "minio":
        names.insert(0, "MINIO_ENDPOINT")
    endpoint = next((os.environ[name] for name in names if os.environ.get(name)), "")
    if scheme(uri) == "minio" and not endpoint:
        raise StorageError(
            "no endpoint is set for minio://",
            where=str(uri),
            remedy="Set MINIO_ENDPOINT, such as http://seaweedfs.kubeflow:9000.",
        )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else "")
    mode = os.environ.get("TRITOWER_S3_CREDENTIALS", "")
    key, secret, token = ("", "", "") if mode else _keys()
    shared = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()
    if not (mode or (key and secret) or any(os.environ.get(name) for name in _SDK_VARIABLES) or shared.exists()):
        raise CredentialsError(
            "no credentials for the object store",
            where=str(uri),
            remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or TRITOWER_SECRET_DIR to a mounted Secret with accesskey"
            " and secretkey (TRITOWER_S3_CREDENTIALS=anonymous for a public bucket, =instance for a machine's role).",
        )
    return Access(
        endpoint=endpoint.partition("://")[2] if "://" in endpoint else endpoint,
        secure=not endpoint.startswith("http://"),
        region=region,
        access_key=key,
        secret_key=secret,
        session_token=token,
        anonymous=mode == "anonymous",
    )


def _keys() -> tuple[str, str, str]:
    """Access key, secret key and session token from the environment or the mounted Secret; empty where unknown."""
    folder = os.environ.get("TRITOWER_SECRET_DIR", "")

    def find(variable: str, *files: str) -> str:
        for file in (variable, *files):
            if folder and (Path(folder) / file).is_file():
                return (Path(folder) / file).read_text(encoding="utf-8").strip()
        return os.environ.get(variable, "")

    return (
        find("AWS_ACCESS_KEY_ID", "accesskey"),
        find("AWS_SECRET_ACCESS_KEY", "secretkey"),
        find("AWS_SESSION_TOKEN", "sessiontoken"),
    )


@functools.cache
def _s3(how: Access) -> "FileSystem":
    from pyarrow.fs import S3FileSystem

    # With an endpoint of its own pyarrow addresses buckets by path, which every S3 store understands.
    return S3FileSystem(
        access_key=how.access_key or None,
        secret_key=how.secret_key or None,
        session_token=how.session_token or None,
        anonymous=how.anonymous,
        region=how.region or None,
        endpoint_override=how.endpoint or None,
        scheme="https" if how.secure else "http",
        connect_timeout=10,
        request_timeout=300,
    )


def _google() -> "FileSystem":
    from datetime import timedelta

    from pyarrow.fs import GcsFileSystem

    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "").removeprefix("http://")
    if emulator:
        return GcsFileSystem(anonymous=True, scheme="http", endpoint_override=emulator, retry_time_limit=timedelta(seconds=60))
    well_known = Path("~/.config/gcloud/application_default_credentials.json").expanduser()
    known = ("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", "KUBERNETES_SERVICE_HOST")
    if not (any(os.environ.get(name) for name in known) or well_known.exists()):
        raise CredentialsError(
            "no Google credentials",
            where="gs://",
            remedy="Set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run where there is workload identity.",
        )
    return GcsFileSystem(retry_time_limit=timedelta(seconds=60))


@functools.cache
def _minio(how: Access) -> "Minio":
    import urllib3
    from minio import Minio
    from minio.credentials.providers import AWSConfigProvider, ChainedProvider, IamAwsProvider

    static = bool(how.access_key) or how.anonymous
    pool = urllib3.PoolManager(
        maxsize=10,  # minio sends the parts of a large object by several threads
        timeout=urllib3.Timeout(connect=10, read=300),
        retries=urllib3.Retry(total=3, backoff_factor=0.3, status_forcelist=[500, 502, 503, 504]),
    )
    return Minio(
        how.endpoint or "s3.amazonaws.com",
        access_key=how.access_key or None,
        secret_key=how.secret_key or None,
        session_token=how.session_token or None,
        secure=how.secure,
        region=how.region or None,
        credentials=None if static else ChainedProvider([AWSConfigProvider(), IamAwsProvider()]),
        http_client=pool,
    )


@contextlib.contextmanager
def _minio_errors() -> Iterator[None]:
    """The minio client's errors as OSError, which is what pyarrow raises."""
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (MinioException, HTTPError, ValueError) as error:
        raise OSError(str(error)) from error
