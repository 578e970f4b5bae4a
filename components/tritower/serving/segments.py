"""The segments of a journal, which are files of this machine or objects of a store: listed, read, written anew, removed.

Anybody reads. Writing anew and removing is for whoever holds the journal (`place.held`), and for what is too old.
"""

from tritower import storage
from tritower.errors import StorageError
from tritower.serving import records

WRITER = "the writer of the journal"


def at(location: storage.LocationLike, name: str) -> str:
    """Where a segment of a journal, or another file of it, is."""
    return f"{str(location).rstrip('/')}/{name}"


def replace(location: storage.LocationLike, name: str, content: bytes) -> None:
    """Write a segment anew, as a whole. Whoever calls this is the writer.

    Raises:
        StorageError: it cannot be written, or somebody else has written it.
    """
    place = at(location, name)
    found = storage.read_small(place)
    if not storage.swap_small(place, content, tag=found[1] if found else ""):
        raise StorageError("another process has written it meanwhile", where=place, remedy="Try again.")


def remove(location: storage.LocationLike, name: str) -> None:
    """Remove a segment."""
    if storage.is_local(location):
        (storage.local_path(location) / name).unlink(missing_ok=True)
    else:
        storage.remove(at(location, name))


def remove_cut(location: storage.LocationLike) -> None:
    """Remove what crashes have cut."""
    if storage.is_local(location):
        for path in storage.local_path(location).glob("cut-*.bin"):
            path.unlink()


def names(location: storage.LocationLike) -> list[str]:
    """The names of a journal's segments in order; none where there is no journal."""
    return list(sizes(location))


def sizes(location: storage.LocationLike) -> dict[str, int]:
    """The segments of a journal in order, and the bytes of each.

    Raises:
        StorageError: the place cannot be read.
    """
    from pyarrow.fs import FileSelector

    store, path = storage.filesystem(location)
    with storage.reading(location):
        found = store.get_file_info(FileSelector(path, allow_not_found=True))
    return {one.base_name: one.size for one in sorted(found, key=lambda one: one.base_name)
            if records.first_number(one.base_name) is not None}  # fmt: skip


def look(location: storage.LocationLike, name: str, position: int = 0, size: int | None = None) -> tuple[bytes, int] | None:
    """The bytes of a segment from a position on, all or the first `size`, and its length; None where there is none.

    Raises:
        StorageError: the place cannot be read.
    """
    if not storage.is_local(location):
        found = storage.read_small(at(location, name))
        stop = None if size is None else position + size
        return None if found is None else (found[0][position:stop], len(found[0]))
    path = storage.local_path(location) / name
    try:
        with storage.reading(location), path.open("rb") as file:
            long = file.seek(0, 2)
            file.seek(min(position, long))
            return file.read(-1 if size is None else size), long
    except FileNotFoundError:
        return None


def read(location: storage.LocationLike, name: str, position: int = 0, size: int | None = None) -> bytes:
    """The bytes alone; none where there is no such segment."""
    found = look(location, name, position, size)
    return found[0] if found else b""


class UnknownOutcome(StorageError):
    """Whether what was written is there will be known when the journal is opened again."""
