"""Find what the last good run left, fetch its models, and record what this run leaves."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tritower import storage
from tritower.champion import kept, pointer
from tritower.errors import ArtifactError, ConfigError
from tritower.logs import phase
from tritower.storage import manifest
from tritower.storage.staging import LOCATION

logger = logging.getLogger(__name__)
_BOTH = "Give the pointer's root alone, or the two locations."


class Resolved(NamedTuple):
    """Locations to work with, and the champion's version; 0 where they were given by hand."""

    ranker_model: str
    encoder: str
    state: str
    version: int


def resolve(*, root: str, ranker_model: str = "", encoder: str = "", state: str = "") -> Resolved:
    """What to work with: the locations that are given, else what the pointer under `root` names.

    Args:
        root: where the pointer is; empty where none is kept.
        ranker_model: location of a ranker, in place of the pointer's champion.
        encoder: location of the text encoder that it was trained with.
        state: location of a state, in place of the pointer's; empty for none where there is no pointer.

    Raises:
        ConfigError: no model is given, or one by hand and one by the pointer.
        ArtifactError: the pointer names no champion, or is damaged.
        StorageError: the pointer cannot be read.
    """
    if bool(ranker_model) != bool(encoder):
        given = "a model without its encoder" if ranker_model else "an encoder without its model"
        raise ConfigError(f"there is {given}", where="model_ranker, model_encoder", remedy="Give both, of one run.")
    if not root:
        if not ranker_model:
            remedy = "Give model_ranker and model_encoder, or model_champion, the root of the pointer."
            raise ConfigError("no model is given", where="model_champion", remedy=remedy)
        return Resolved(ranker_model, encoder, state, 0)
    if ranker_model:
        raise ConfigError("a model is given by hand and by the pointer", where=f"model_champion {root}", remedy=_BOTH)
    found = kept.read(root)
    if not found.champion:
        raise ArtifactError(
            "there is no champion yet",
            where=kept.file(root),
            remedy="A training with this `model_champion` promotes its model when the gate passes (the first one without the"
            f" part champion: there is none to compare with). Or have the champion set by hand: {kept.command(root)}.",
        )
    used = found.champion
    went_on = state or (found.state.location if found.state else "")
    logger.info("champion version %d of %s: %s", used.version, used.at or "an unknown time", used.ranker_model)
    logger.info("the features continue from %s", went_on or "nothing")
    return Resolved(used.ranker_model, used.encoder, went_on, used.version)


def fetch(*, ranker_model_at: str, encoder_at: str, ranker_model: str | Path, encoder: str | Path) -> None:
    """Copy a ranker and its encoder into this run, held against their manifests.

    Args:
        ranker_model_at: location of the ranker.
        encoder_at: location of the text encoder that it was trained with.
        ranker_model: folder to write.
        encoder: folder to write.

    Raises:
        StorageError: one is not there, or its store fails.
        ArtifactError: one is not what was written.
    """
    with phase(logger, "fetch the champion"):
        storage.fetch_tree(ranker_model_at, ranker_model)
        storage.fetch_tree(encoder_at, encoder)


def record(
    *,
    root: str,
    state: Any,
    gate: str = "",
    version: int = 0,
    ranker_model: Any = None,
    encoder: Any = None,
    about: Mapping[str, Any] | None = None,
) -> str:
    """Move the pointer to what this run leaves, as far as it may (see `pointer`); what was decided, in words.

    Args:
        root: where the pointer is; empty where none is kept.
        state: artifact of the features' state.
        gate: 'pass' or 'hold' of a training; empty for a run that trains nothing and only moves the state.
        version: of the champion that the run worked or was compared with; 0 for none.
        ranker_model: artifact of the trained ranker.
        encoder: artifact of the text encoder that it was trained with.
        about: `run`, `data_version` and `auc`, as far as they are known.

    Raises:
        ConfigError: the gate has another word.
        ArtifactError: an artifact is not whole, or the pointer is damaged.
        StorageError: the pointer cannot be read or written.
    """
    if not root:
        return _said("no pointer is kept: nothing moves")
    if gate not in ("", "pass", "hold"):
        raise ConfigError(f"the gate says {gate!r}", where="gate", remedy="Give 'pass' or 'hold'.")
    if gate == "hold":
        return _said("the gate holds: the champion stays")
    known = dict(about or {})
    left = _state(state, str(known.get("run", "")))
    if not gate:
        return _said(kept.move(root, lambda now: pointer.advanced(now, left, against=version)).why)
    _check_whole(ranker_model)
    _check_whole(encoder)
    new = pointer.Champion(
        version=1, ranker_model=location(ranker_model), encoder=location(encoder), at=kept.now(),
        run=str(known.get("run", "")), data_version=str(known.get("data_version", "")), auc=known.get("auc"),
    )  # fmt: skip
    return _said(kept.move(root, lambda now: pointer.promoted(now, new, left, against=version)).why)


def location(artifact: Any) -> str:
    """Where an artifact stays: its URI, or what it was before it was fetched into a scratch folder (`storage.staging`)."""
    return str(artifact.metadata.get(LOCATION) or artifact.uri)


def _state(artifact: Any, run: str) -> pointer.State:
    _check_whole(artifact)
    ends = int(storage.read_json(Path(artifact.path) / "state.json")["last_ts"])
    return kept.state(location(artifact), ends, run=run)


def _check_whole(artifact: Any) -> None:
    """Raise ArtifactError unless a folder has a manifest and is what it says."""
    if not (Path(artifact.path) / storage.MARK).is_file():
        raise ArtifactError(
            "the folder has no manifest: nobody can say that it is whole",
            where=location(artifact),
            remedy="Let the step that writes it run again.",
        )
    manifest.check(artifact.path)


def _said(why: str) -> str:
    logger.info("pointer: %s", why)
    return why
