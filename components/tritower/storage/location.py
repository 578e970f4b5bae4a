"""A location, parsed once: a path of this machine, or bucket and key of an object store."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tritower.errors import StorageError

SCHEMES = ("file", "s3", "minio", "gs")
# A user and password before the bucket (keys of AWS may hold slashes), or a key among query parameters.
_LOGIN = re.compile(r"^(?:[^/@]*|[^/]*:.*)@")
_KEY = re.compile(r"([?&][^=&]*(?:secret|password|passwd|token|access_?key|signature|credential)[^=&]*=)[^&]*", re.IGNORECASE)


@dataclass(frozen=True)
class Location:
    """Where something is. `str()` gives it as it was written, for messages and for whoever takes text."""

    scheme: str
    """One of `SCHEMES`."""
    path: str
    """The path on this machine as given, or `bucket/key` without a slash at its end."""
    text: str
    """As it was written."""

    @classmethod
    def parse(cls, given: "LocationLike") -> "Location":
        """Read a path, `file://`, `s3://`, `minio://` or `gs://`; a location that was read already is returned as it is.

        Raises:
            StorageError: another scheme, or credentials stand in the location; they are not repeated.
        """
        if isinstance(given, Location):
            return given
        head, separator, rest = str(given).partition("://")
        if not separator:
            return cls("file", head, head)
        scheme = head.lower()
        if scheme == "file":
            return cls(scheme, rest, str(given))
        if _LOGIN.search(rest) or _KEY.search(rest):
            shown = _KEY.sub(r"\1***", _LOGIN.sub("***@", rest))
            raise StorageError(
                "credentials stand in the location",
                where=f"{head}://{shown}",
                remedy="Locations are shown and logged: give keys by the environment (AWS_ACCESS_KEY_ID,"
                " AWS_SECRET_ACCESS_KEY, TRITOWER_SECRET_DIR), and replace those that were given here.",
            )
        if scheme not in SCHEMES:
            remedy = "Use a path, file://, s3://, minio:// or gs://."
            raise StorageError(f"unknown scheme {head!r}", where=str(given), remedy=remedy)
        return cls(scheme, rest.rstrip("/"), str(given))

    def __str__(self) -> str:
        return self.text

    @property
    def is_local(self) -> bool:
        """Whether it is a path on this machine."""
        return self.scheme == "file"

    @property
    def local(self) -> Path:
        """The path of a local location."""
        assert self.is_local, self.text
        return Path(self.path)

    @property
    def bucket(self) -> str:
        """The bucket of a remote location."""
        return self.path.partition("/")[0]

    @property
    def key(self) -> str:
        """The key of a remote location; empty for a whole bucket."""
        return self.path.partition("/")[2]

    def sibling(self, path: str) -> str:
        """The text of another path of the same store, in this location's spelling."""
        head, separator, _ = self.text.partition("://")
        return head + separator + path if separator else path


LocationLike: TypeAlias = Location | str | Path


def is_local(location: LocationLike) -> bool:
    """Whether a location is a path on this machine."""
    return Location.parse(location).is_local


def local_path(location: LocationLike) -> Path:
    """The path of a local location."""
    return Location.parse(location).local
