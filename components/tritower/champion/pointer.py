"""What the pointer says, and how it may move. Pure: `kept.py` reads and writes it.

The field's words: the *champion* is the model in use, a model is *promoted* to it (MLflow: the alias of a registered model).

Rules of the moves, whoever comes first and however often:

* A run that is tried again finds what it recorded, and changes nothing.
* A verdict counts against the champion that it was about. Where another one was promoted meanwhile, nothing moves.
* A state belongs to the champion whose encoder made its vectors: promotion brings the state of the same run, and a run that
  worked with an earlier champion moves nothing.
* Of two states of one champion the one that reaches further in time stays: back-filling an old day takes nothing back.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tritower.config import check

FORMAT = 1
"""Version of the file's schema."""


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A model, or one that was in use before."""

    version: int
    """Counts promotions, from 1."""

    ranker_model: str
    """Location of the ranker."""

    encoder: str
    """Location of the text encoder of the same run."""

    run: str = ""
    """Id of the run that made it."""

    auc: float | None = None
    """Its AUC where the gate looked."""

    data_version: str = ""
    """The data that it was trained on."""

    at: str = ""
    """When it was promoted: ISO 8601, UTC."""

    def __post_init__(self) -> None:
        check(self.version >= 1, "version", self.version, "of at least 1")
        check(bool(self.ranker_model), "ranker_model", self.ranker_model, "that is a location")
        check(bool(self.encoder), "encoder", self.encoder, "that is a location")


@dataclass(frozen=True, kw_only=True)
class State:
    """Counters and histories of the features, to continue from."""

    location: str
    """Where it is."""

    reaches_to_us: int
    """Time of the last event in it: microseconds since 1970."""

    reaches_to: str = ""
    """The same for readers."""

    run: str = ""
    """Id of the run that left it."""

    at: str = ""
    """When it was recorded: ISO 8601, UTC."""

    def __post_init__(self) -> None:
        check(bool(self.location), "location", self.location, "that is a location")


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """What the last good runs left."""

    format: int = FORMAT
    """Version of the schema; `kept.py` checks it."""

    champion: Champion | None = None
    """The model in use; None where no training has passed the gate."""

    previous: Champion | None = None
    """The one before: runs under way may still be at work with it."""

    state: State | None = None
    """Where the next run continues; None to start from nothing."""


@dataclass(frozen=True)
class Move:
    """A pointer after a decision, and the decision in words."""

    pointer: Pointer
    why: str


def promoted(pointer: Pointer, new: Champion, state: State | None, *, against: int = 0) -> Move:
    """Make a model the champion.

    Args:
        pointer: as it is.
        new: the model; its version is set here.
        state: of the same run; None makes the next run start from nothing.
        against: version of the champion that it was compared with; 0 where it was compared with none.
    """
    now = pointer.champion
    if now and (now.ranker_model, now.encoder) == (new.ranker_model, new.encoder):
        return Move(pointer, f"this model is the champion already, version {now.version}")
    if against and (now.version if now else 0) != against:
        found = f"version {now.version} is in use" if now else "none is in use"
        return Move(pointer, f"it was compared with champion version {against}, and {found} by now: nothing moves")
    champion = replace(new, version=now.version + 1 if now else 1)
    return Move(
        replace(pointer, champion=champion, previous=now, state=state), f"promoted: champion version {champion.version}"
    )


def advanced(pointer: Pointer, state: State, *, against: int) -> Move:
    """Let the next run continue from a state.

    Args:
        pointer: as it is.
        state: what a run of this champion left.
        against: version of the champion that the run worked with.
    """
    now = pointer.champion.version if pointer.champion else 0
    if now != against:
        return Move(pointer, f"the state is of champion version {against}, and version {now} is in use by now: nothing moves")
    if pointer.state and state.location == pointer.state.location:
        return Move(pointer, "this state is recorded already")
    if pointer.state and state.reaches_to_us <= pointer.state.reaches_to_us:
        return Move(pointer, f"a state that reaches as far is recorded ({moment(pointer.state.reaches_to_us)}): nothing moves")
    return Move(replace(pointer, state=state), f"the state reaches to {moment(state.reaches_to_us)}")


def moment(ts_us: int) -> str:
    """Microseconds since 1970 as ISO 8601 in UTC, to the second."""
    return f"{datetime.fromtimestamp(ts_us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
