"""What can be known of a run before a backend gets it: whether its pods can open the locations, and a version of the data.

Nothing here needs the keys of a store: those are the backend's.
"""

import datetime as dt
from collections.abc import Mapping

from tritower import storage
from tritower.errors import ConfigError, CredentialsError, StorageError
from tritower.storage import remote

from pipelines.version import data_version

_MOST_CHARACTERS = 200


def check_locations(locations: Mapping[str, str]) -> None:
    """Check that a backend's pods can open the locations, as far as it can be known from here.

    Args:
        locations: parameter -> location; empty where there is none.

    Raises:
        ConfigError: a location is on this machine.
        StorageError: an unknown scheme.
    """
    for parameter, location in locations.items():
        if not location:
            continue
        where = f"--{parameter.replace('_', '-')} {location}"
        if storage.is_local(location):
            problem = "a pod of the backend cannot open a path of this machine"
            raise ConfigError(problem, where=where, remedy="Upload it, and give its s3://, minio:// or gs:// location.")


def version(locations: Mapping[str, str], given: str = "") -> tuple[str, str]:
    """The data version of a run, and what there is to say about it.

    Args:
        locations: parameter -> location.
        given: a version of the user's own; then nothing is read.

    Returns:
        The version. With it a remark, where this machine cannot read the data: the version is then the time, so that no step
        is taken from the cache for data that may have changed.

    Raises:
        ConfigError: the given version is no line of printable text.
        StorageError: a location does not exist, or its store does not answer.
    """
    if given:
        if not (given.isprintable() and given.strip() and len(given) <= _MOST_CHARACTERS):
            remedy = f"Give one line of up to {_MOST_CHARACTERS} printable characters, such as the date of the export."
            raise ConfigError("the data version is not a line of text", where="--data-version", remedy=remedy)
        return given, ""
    try:
        for location in locations.values():
            _check_remote(location)
        return data_version(*locations.values()), ""
    except (CredentialsError, _NoWay) as error:
        reason = f"{error.problem} (for {error.where})"
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed here"
    except StorageError as error:
        remedy = f"{error.remedy} Or give --data-version, and nothing is read from here."
        raise StorageError(error.problem, where=error.where, remedy=remedy) from None
    made = f"unread-{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    return made, (
        f"The data cannot be read from here: {reason}. Its version is therefore the time, {made}, and no step is taken from the"
        f" cache. To go on from this run's finished steps, submit again with --data-version {made}."
    )


class _NoWay(StorageError):
    """This machine knows no address of the store."""


def _check_remote(location: str) -> None:
    """Raise unless a remote location is there, for the credentials that this machine has."""
    if not location or storage.is_local(location):
        return
    try:
        if storage.Location.parse(location).scheme != "gs":
            remote.access(location)
    except CredentialsError:
        raise
    except StorageError as error:
        raise _NoWay(error.problem, where=error.where, remedy=error.remedy) from None
    storage.list_files(location)
