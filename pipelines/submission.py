"""What can be known of a run before a backend gets it: whether its pods can open the locations, and a version of the data.

Nothing here needs the keys of a store: those are the backend's.
"""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

from tritower import storage
from tritower.errors import ConfigError, CredentialsError, StorageError
from tritower.storage import remote

from pipelines import graph
from pipelines.version import data_version

_MOST_CHARACTERS = 200


def check_locations(pipeline: Path, locations: Mapping[str, str]) -> list[str]:
    """Check that a backend's pods can open the locations, as far as it can be known from here; what remains doubtful, in words.

    Args:
        pipeline: the compiled pipeline.
        locations: parameter -> location; empty where there is none.

    Raises:
        ConfigError: a location is on this machine, or an importer cannot take it.
        StorageError: an unknown scheme.
    """
    imported = _imported(pipeline)
    doubts = []
    for parameter, location in locations.items():
        if not location:
            continue
        where = f"--{parameter.replace('_', '-')} {location}"
        if storage.is_local(location):
            problem = "a pod of the backend cannot open a path of this machine"
            raise ConfigError(problem, where=where, remedy="Upload it, and give its s3://, minio:// or gs:// location.")
        if parameter in imported and not location.partition("://")[2].strip("/").partition("/")[2]:
            problem = "a whole bucket cannot be imported"
            raise ConfigError(problem, where=where, remedy="Give the folder that the training run wrote, as bucket/path.")
        if parameter in imported and storage.Location.parse(location).scheme == "s3":
            doubts.append(
                f"{where}: the backend imports it only where its ConfigMap kfp-launcher names a provider for s3 (else: 'Invalid"
                " region'). What a run wrote into the backend's own store is at minio://, as the artifact's page says."
            )
    return doubts


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


def _imported(pipeline: Path) -> set[str]:
    """The pipeline parameters that its importers take."""
    tasks = graph.tasks(graph.document(pipeline))
    return {parameter for task in tasks if task.kind == "importer" for parameter in task.parameters.values()}
