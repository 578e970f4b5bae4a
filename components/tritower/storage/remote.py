"""Object stores: where they are, who may use them, and what they say when they refuse.

Where a store is and who may use it comes from the environment, never from a parameter:

    TRITOWER_S3_ENDPOINT, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL    `http://host:port` of an S3 store other than AWS
    MINIO_ENDPOINT                                                 the same for minio:// alone
    AWS_REGION, AWS_DEFAULT_REGION                                 region; us-east-1 with an endpoint of one's own
    TRITOWER_S3_CA_FILE, AWS_CA_BUNDLE                             PEM file of the CA that signed the store's certificate
    TRITOWER_S3_TIMEOUT_S                                          seconds without an answer until a request has failed (60)
    TRITOWER_S3_RETRIES                                            how often a failed request is made again (5), gs:// included
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN    credentials
    TRITOWER_SECRET_DIR                                            a mounted Secret with `accesskey` and `secretkey`, or with
                                                                   files named as the variables above
    AWS_PROFILE, ~/.aws/credentials, AWS_WEB_IDENTITY_TOKEN_FILE,  the AWS SDK's own ways, workload identity among them
    AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI
    TRITOWER_S3_CREDENTIALS                                        `anonymous` for public buckets, `instance` for a
                                                                   virtual machine's role
    GOOGLE_APPLICATION_CREDENTIALS, GCE_METADATA_HOST              Google; on a cluster, workload identity
    STORAGE_EMULATOR_HOST                                          `host:port` of a Google storage emulator

A request that fails for the store's sake (no connection, no answer in time, HTTP 429 and 5xx, a body that ends early) is
made again after 0.5, 1, 2, 4... seconds. Whole objects are moved by `objects.py`.
"""

import contextlib
import errno
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tritower.errors import ConfigError, CredentialsError, StorageError
from tritower.storage.location import Location, LocationLike

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_SDK_VARIABLES = (
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)
# What stores say when they refuse: pyarrow passes on the AWS SDK's error names, minio the codes of the S3 protocol.
_REFUSED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_SIGNATURE", "EXPIRED_TOKEN",
            "HTTP response code 403", "HTTP status 403", "HTTP status 401", "AccessDenied", "InvalidAccessKeyId",
            "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "PERMISSION_DENIED", "UNAUTHENTICATED",
            "Unauthenticated")  # fmt: skip
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_NO_BUCKET = ("NO_SUCH_BUCKET", "NoSuchBucket", "Bucket does not exist", "bucket does not exist")
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "SSL peer certificate", "curlCode: 60", "curlCode: 77")
_SILENT = ("NewConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "timed out", "Connection refused", "curlCode: 28",
           "curlCode: 7,", "curlCode: 6,", "NameResolutionError")  # fmt: skip


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
    ca_file: str
    timeout_s: float
    retries: int


def filesystem(location: Location) -> "FileSystem":
    """The pyarrow file system of a remote location.

    Raises:
        CredentialsError: there are no credentials for it.
    """
    return google() if location.scheme == "gs" else _s3(access(location))


@contextlib.contextmanager
def reading(location: LocationLike) -> Iterator[None]:
    """Turn what a store says when it cannot be read or written into an error of ours that names the location."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        place = Location.parse(location)
        if error.errno in _FULL or place.is_local:
            raise
        raise _explained(error, place) from error


def _explained(error: OSError, location: Location) -> OSError:
    """What a store said, as an error of ours that names the location and the remedy."""
    text, where = str(error).splitlines()[0][:500], str(location)

    def says(words: tuple[str, ...]) -> bool:
        return any(word in str(error) for word in words)

    if says(_REFUSED):
        problem = f"the store refuses the credentials: {text}"
        return CredentialsError(problem, where=where, remedy="Check the keys and what they may do.")
    if says(_NO_BUCKET):
        return no_bucket(location)
    if says(_UNTRUSTED):
        problem = f"the store's certificate is not trusted: {text}"
        return StorageError(problem, where=where, remedy="Set AWS_CA_BUNDLE to the PEM file of the CA that signed it.")
    if says(_SILENT):
        problem = f"the store does not answer: {text}"
        return StorageError(problem, where=where, remedy="Check the endpoint and the network.")
    return StorageError(f"the store failed: {text}", where=where, remedy="Check the endpoint and the network.")


def no_bucket(location: Location) -> StorageError:
    """The error for a location whose bucket is not there."""
    return StorageError("the bucket does not exist", where=str(location), remedy="Check its name and the endpoint.")


def access(location: LocationLike) -> Access:
    """How to reach the S3 store behind an s3:// or minio:// location, from the environment.

    Raises:
        CredentialsError: no credentials are set.
        StorageError: a minio:// location without an endpoint.
    """
    place = Location.parse(location)
    names = ["TRITOWER_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
    if place.scheme == "minio":
        names.insert(0, "MINIO_ENDPOINT")
    endpoint = next((os.environ[name] for name in names if os.environ.get(name)), "")
    if place.scheme == "minio" and not endpoint:
        raise StorageError(
            "no endpoint is set for minio://",
            where=str(place),
            remedy="Set MINIO_ENDPOINT, such as http://seaweedfs.kubeflow:9000.",
        )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else "")
    mode = os.environ.get("TRITOWER_S3_CREDENTIALS", "")
    key, secret, token = ("", "", "") if mode else _keys()
    shared = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()
    if not (mode or (key and secret) or any(os.environ.get(name) for name in _SDK_VARIABLES) or shared.exists()):
        raise CredentialsError(
            "no credentials for the object store",
            where=str(place),
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
        ca_file=_ca_file(),
        timeout_s=_number("TRITOWER_S3_TIMEOUT_S", 60.0),
        retries=retries(),
    )


def retries() -> int:
    """How often a request that failed for the store's sake is made again."""
    return int(_number("TRITOWER_S3_RETRIES", 5))


def _ca_file() -> str:
    variable = next((name for name in ("TRITOWER_S3_CA_FILE", "AWS_CA_BUNDLE") if os.environ.get(name)), "")
    if variable and not Path(os.environ[variable]).is_file():
        raise StorageError(
            "there is no such CA file", where=f"{variable}={os.environ[variable]}", remedy="Correct the variable."
        )
    return os.environ[variable] if variable else ""


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    try:
        value = float(text or default)
    except ValueError:
        value = -1.0
    if value < 0:
        raise ConfigError(f"{text!r} is not a number from 0 on", where=variable, remedy="Correct the variable.")
    return value


def environment(location: LocationLike) -> dict[str, str]:
    """The variables by which another process reaches the store of an s3:// or minio:// location as this one does.

    Files that variables name stay files: the other process needs them at the same path.
    """
    how = access(location)
    names = ("AWS_REGION", "AWS_DEFAULT_REGION", "TRITOWER_S3_CREDENTIALS", "TRITOWER_S3_CA_FILE", "AWS_CA_BUNDLE",
             "TRITOWER_S3_TIMEOUT_S", "TRITOWER_S3_RETRIES", "TRITOWER_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL",
             "MINIO_ENDPOINT", *_SDK_VARIABLES)  # fmt: skip
    found = {name: os.environ[name] for name in names if os.environ.get(name)}
    keys = {
        "AWS_ACCESS_KEY_ID": how.access_key,
        "AWS_SECRET_ACCESS_KEY": how.secret_key,
        "AWS_SESSION_TOKEN": how.session_token,
    }
    return found | {name: value for name, value in keys.items() if value}


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
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    # With an endpoint of its own pyarrow addresses buckets by path, which every S3 store understands.
    return S3FileSystem(
        access_key=how.access_key or None,
        secret_key=how.secret_key or None,
        session_token=how.session_token or None,
        anonymous=how.anonymous,
        region=how.region or None,
        endpoint_override=how.endpoint or None,
        scheme="https" if how.secure else "http",
        connect_timeout=min(10.0, how.timeout_s),
        request_timeout=how.timeout_s,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=how.retries + 1),
        tls_ca_file_path=how.ca_file or None,
    )


def google() -> "FileSystem":
    """The pyarrow file system of Google storage.

    Raises:
        CredentialsError: there are no credentials for it.
    """
    from datetime import timedelta

    from pyarrow.fs import GcsFileSystem

    check_google()
    if emulator := google_emulator():
        return GcsFileSystem(anonymous=True, scheme="http", endpoint_override=emulator, retry_time_limit=timedelta(seconds=60))
    return GcsFileSystem(retry_time_limit=timedelta(seconds=60))


def google_emulator() -> str:
    """`host:port` of an emulator; empty where Google itself is asked."""
    return os.environ.get("STORAGE_EMULATOR_HOST", "").removeprefix("http://")


def google_key() -> Path | None:
    """The file with credentials of Google's; None where the metadata server gives them, or nobody."""
    given = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    well_known = Path("~/.config/gcloud/application_default_credentials.json").expanduser()
    return Path(given) if given else well_known if well_known.exists() else None


def check_google() -> None:
    """Raises:
    CredentialsError: nothing says who asks Google storage.
    """
    known = any(os.environ.get(name) for name in ("GCE_METADATA_HOST", "KUBERNETES_SERVICE_HOST"))
    if not (google_emulator() or known or google_key()):
        raise CredentialsError(
            "no Google credentials",
            where="gs://",
            remedy="Set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run where there is workload identity.",
        )
