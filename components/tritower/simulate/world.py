"""The simulated board as arrays: everything that the log, and the truth of any (search, job) pair, is computed from.

Legend: J jobs, U users, R requests, C companies, T cities (towns), S industries, O occupations, V title variants, D dimensions
of a speciality vector. Text stays in plain Python lists.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritower import config as knobs
from tritower import storage
from tritower.errors import ArtifactError
from tritower.simulate.config import SimulateConfig

FORMAT = 1
Ints = NDArray[np.int32]
Reals = NDArray[np.float32]


@dataclass(kw_only=True)
class Jobs:
    """What a job is, apart from its texts."""

    occupation: Ints
    variant: Ints
    seniority: Ints  # 0 trainee .. 4 lead
    city: Ints
    region: Ints
    remote: NDArray[np.bool_]
    company: Ints
    industry: Ints
    reputation: Reals  # of the company, standard deviations
    appeal: Reals  # standard deviations
    category: Ints  # the occupation that the board filed it under; sometimes wrong
    posted_us: NDArray[np.int64]
    expires_us: NDArray[np.int64]


@dataclass(kw_only=True)
class Users:
    """What a user is."""

    seniority: Reals  # 0 .. 4, not whole
    city: Ints
    career: Ints
    second_career: Ints
    remote_minded: Reals  # 0 .. 1
    taste_industry_US: Reals
    taste_work_UD: Reals
    activity: NDArray[np.float64]


@dataclass(kw_only=True)
class Requests:
    """What a search is, in time order; the row number is the request."""

    user: Ints
    ts_us: NDArray[np.int64]
    occupation: Ints  # what the user wants now
    variant: Ints  # the title that the user has in mind
    city: Ints
    region: Ints
    query: Ints
    page: NDArray[np.int16]  # jobs to show
    randomised: NDArray[np.bool_]


@dataclass(kw_only=True)
class World:
    """A board: its jobs, users and requests, what relates them, and the solved intercept of the click model."""

    config: SimulateConfig
    jobs: Jobs
    users: Users
    requests: Requests
    relatedness_OO: Reals
    speciality_VD: Reals
    intercept: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


def request_id(number: int) -> str:
    """The id of a request in the log."""
    return f"r{number:08d}"


def job_id(number: int) -> str:
    """The id of a job in the log."""
    return f"j{number:07d}"


def user_id(number: int) -> str:
    """The id of a user in the log."""
    return f"u{number:07d}"


def save(world: World, directory: Path) -> None:
    """Write world.json and one npz per table; nothing is pickled."""
    directory.mkdir(parents=True)
    for name in ("jobs", "users", "requests"):
        np.savez(directory / f"{name}.npz", allow_pickle=False, **_arrays(getattr(world, name)))
    np.savez(
        directory / "meaning.npz", allow_pickle=False, relatedness_OO=world.relatedness_OO, speciality_VD=world.speciality_VD
    )
    text = {"format": FORMAT, "intercept": world.intercept, "config": knobs.to_dict(world.config), "facts": world.facts}
    (directory / "world.json").write_text(json.dumps(text, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def load(directory: str | Path) -> World:
    """Read what `save` wrote.

    Raises:
        StorageError: there is no world.
        ArtifactError: the world is of another format.
    """
    folder = Path(directory)
    text = storage.read_json(folder / "world.json")
    if text.get("format") != FORMAT:
        raise ArtifactError(
            f"the world has format {text.get('format')}, not {FORMAT}", where=str(folder), remedy="Generate the log again."
        )
    meaning = _read(folder / "meaning.npz")
    return World(
        config=knobs.from_dict(SimulateConfig, text["config"], where=f"{folder}/world.json"),
        jobs=Jobs(**_read(folder / "jobs.npz")),
        users=Users(**_read(folder / "users.npz")),
        requests=Requests(**_read(folder / "requests.npz")),
        relatedness_OO=meaning["relatedness_OO"],
        speciality_VD=meaning["speciality_VD"],
        intercept=text["intercept"],
        facts=text["facts"],
    )


def _arrays(table: Any) -> dict[str, Any]:
    return {f.name: getattr(table, f.name) for f in dataclasses.fields(table)}


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
