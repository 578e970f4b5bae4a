"""The pointer as a file: `<root>/champion.json`, small, replaced as a whole."""

import json
import time
from collections.abc import Callable

from tritower import storage
from tritower.champion.pointer import FORMAT, Move, Pointer, State, moment
from tritower.config import from_dict, to_dict
from tritower.errors import ArtifactError, ConfigError, StorageError

FILE = "champion.json"
_TRIES = 20


def file(root: str) -> str:
    """Location of the pointer under a root."""
    return f"{root.rstrip('/')}/{FILE}"


def read(root: str) -> Pointer:
    """The pointer under a root; one that says nothing where there is none.

    Raises:
        ArtifactError: it is damaged, or of another version of tritower.
        StorageError: it cannot be read.
    """
    return _parsed(storage.read_small(file(root)), file(root))


def move(root: str, decide: Callable[[Pointer], Move]) -> Move:
    """Replace the pointer by what `decide` makes of it, which is asked again where another run came first.

    Raises:
        ArtifactError: the pointer is damaged, or of another version of tritower.
        StorageError: it cannot be read or written.
    """
    place = file(root)
    for _ in range(_TRIES):
        found = storage.read_small(place)
        now = _parsed(found, place)
        decided = decide(now)
        if decided.pointer == now:
            return decided
        said = {name: value for name, value in to_dict(decided.pointer).items() if value is not None}
        text = json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        if storage.swap_small(place, text.encode(), tag=found[1] if found else ""):
            return decided
    raise StorageError("other runs keep replacing the pointer", where=place, remedy="Run the step again in a while.")


def state(location: str, ends_us: int, *, run: str) -> State:
    """A state as the pointer names it from now on; `ends_us` is the time of its last event, microseconds since 1970."""
    return State(location=location, reaches_to_us=ends_us, reaches_to=moment(ends_us), run=run, at=now())


def command(root: str) -> str:
    """The command line that makes a model the champion, whatever a gate says."""
    return f"python -m pipelines champion {root} --set-model WHERE --set-encoder WHERE"


def now() -> str:
    """The time as the pointer has it."""
    return moment(time.time_ns() // 1000)


def _parsed(found: tuple[bytes, str] | None, place: str) -> Pointer:
    if not found:
        return Pointer()
    try:
        value = json.loads(found[0])
        if not isinstance(value, dict):
            raise ValueError("it is no mapping")
        if value.get("format") != FORMAT:
            raise ValueError(f"its format is {value.get('format')!r}, this version of tritower reads {FORMAT}")
        return from_dict(Pointer, {name: part for name, part in value.items() if part is not None}, where=place)
    except ConfigError as error:
        problem, where = f"the pointer cannot be read: {error.problem}", error.where
    except ValueError as error:
        problem, where = f"the pointer cannot be read: {error}", place
    by_hand = f"Or move it away and have the champion set by hand: {command(place.removesuffix(f'/{FILE}'))}."
    remedy = f"Read it with the version of tritower that wrote it. {by_hand}"
    raise ArtifactError(problem, where=where, remedy=remedy)
