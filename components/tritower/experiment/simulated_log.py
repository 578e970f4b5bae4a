"""A played test as the tables that an analysis reads, sound or with the faults that real ones have.

Legend: U users, D days, I impressions.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tritower import assignment, storage
from tritower.experiment.config import Faults, Habits
from tritower.experiment.simulation import Played, play
from tritower.experiment.sums import DAY_US

START_US = 1_767_225_600_000_000
"""2026-01-01."""


def write(
    folder: Path,
    *,
    users: int,
    days: int,
    seed: int,
    habits: Habits | None = None,
    faults: Faults | None = None,
    salt: str = "test",
) -> Played:
    """Play a test and write `shown.parquet`, `past.parquet` and `events.parquet` (latencies, unsubscribes) to a new folder.

    Args:
        folder: to write, as a whole.
        users: who take part; their arms come from the hash of `salt`.
        days: its length.
        seed: of everything.
        habits: what users do.
        faults: what is wrong with it.
        salt: of the assignment.
    """
    random, faults = np.random.default_rng(seed), faults or Faults()
    names = [f"user-{number}" for number in range(users)]
    arms = (assignment.Arm(name="control"), assignment.Arm(name="treated"))
    test = assignment.Experiment(name="simulated", salt=salt, arms=arms)
    treated_U = np.array([test.assign(name).arm == "treated" for name in names])
    treated_U ^= random.random(users) < faults.wrong_hash
    played = play(habits or Habits(), users=users, days=days, random=random, treated_U=treated_U)
    with storage.atomic_directory(folder) as made:
        pq.write_table(_shown(played, names, faults, random), made / "shown.parquet")
        pq.write_table(_past(played, names, random), made / "past.parquet")
        pq.write_table(_events(played, names, random), made / "events.parquet")
    return played


def _shown(played: Played, names: list[str], faults: Faults, random: np.random.Generator) -> pa.Table:
    count_UD = played.impressions_UD
    users, days = count_UD.shape
    user_I = np.repeat(np.repeat(np.arange(users), days), count_UD.ravel())
    day_I = np.repeat(np.tile(np.arange(days), users), count_UD.ravel())
    first_I = np.repeat(np.cumsum(count_UD.ravel()) - count_UD.ravel(), count_UD.ravel())
    place_I = np.arange(len(user_I)) - first_I
    clicked_I = place_I < np.repeat(played.clicks_UD.ravel(), count_UD.ravel())
    if faults.bots:
        extra = 200 * days
        user_I = np.concatenate([user_I, np.repeat(users + np.arange(faults.bots), extra)])
        day_I = np.concatenate([day_I, np.tile(np.repeat(np.arange(days), 200), faults.bots)])
        place_I = np.concatenate([place_I, np.tile(np.arange(200), days * faults.bots)])
        clicked_I = np.concatenate([clicked_I, np.ones(extra * faults.bots, np.bool_)])
        names = [*names, *(f"machine-{number}" for number in range(faults.bots))]
    treated_U = np.concatenate([played.treated_U, np.ones(faults.bots, np.bool_)])
    ts_I = START_US + day_I * DAY_US + random.integers(0, DAY_US, len(user_I))
    delay_I = random.integers(1_000_000, 3_600_000_000, len(user_I))
    delay_I[random.random(len(user_I)) < faults.late] += 2 * DAY_US
    delay_I[random.random(len(user_I)) < faults.clock] -= 2 * 3_600_000_000
    arm_I = treated_U[user_I] ^ ((random.random(len(treated_U)) < faults.mixed)[user_I] & (random.random(len(user_I)) < 0.5))
    name_I = np.where(arm_I, "treated", "control").astype(object)
    name_I[random.random(len(user_I)) < faults.unassigned] = ""
    table = pa.table(
        {
            "request_id": pa.array(
                [f"r{user}-{day}-{place // 8}" for user, day, place in zip(user_I, day_I, place_I, strict=True)]
            ),
            "job_id": pa.array([f"j{place % 8}" for place in place_I]),
            "ts": pa.array(ts_I, pa.timestamp("us", tz="UTC")),
            "unit": pa.array(np.array(names, object)[user_I]),
            "arm": pa.array(name_I),
            "clicked": clicked_I,
            "clicked_at": pa.array(ts_I + delay_I, pa.timestamp("us", tz="UTC"), mask=~clicked_I),
            "country": pa.array(np.where(np.append(played.segment_U, np.zeros(faults.bots, np.bool_))[user_I], "US", "CA")),
        }
    )
    gone_U = treated_U & (random.random(len(treated_U)) < faults.moved)
    kept = table.filter(pa.array(~gone_U[user_I]))
    again = random.random(len(kept)) < faults.twice
    return pa.concat_tables([kept, kept.filter(pa.array(again))]).sort_by("ts")


def _past(played: Played, names: list[str], random: np.random.Generator) -> pa.Table:
    clicks_U, count_U = played.past_U2.T
    user_I = np.repeat(np.arange(len(names)), count_U)
    place_I = np.arange(len(user_I)) - np.repeat(np.cumsum(count_U) - count_U, count_U)
    ts_I = START_US - random.integers(1, 28 * DAY_US, len(user_I))
    clicked_I = place_I < np.repeat(clicks_U, count_U)
    return pa.table(
        {
            "request_id": pa.array([f"p{user}-{place // 8}" for user, place in zip(user_I, place_I, strict=True)]),
            "ts": pa.array(ts_I, pa.timestamp("us", tz="UTC")),
            "unit": pa.array(np.array(names, object)[user_I]),
            "clicked": clicked_I,
            "clicked_at": pa.array(ts_I, pa.timestamp("us", tz="UTC"), mask=~clicked_I),
        }
    )


def _events(played: Played, names: list[str], random: np.random.Generator) -> pa.Table:
    """A latency for every day with visits (milliseconds), and unsubscribes of one user in fifty."""
    user_E, day_E = np.nonzero(played.impressions_UD)
    value_E: NDArray[np.float64] = random.lognormal(3.0, 0.4, len(user_E))
    left_L = np.flatnonzero(random.random(len(names)) < 0.02)
    ts_E = START_US + np.concatenate([day_E, np.ones(len(left_L), np.int64)]) * DAY_US + 1_000_000
    return pa.table(
        {
            "unit": pa.array(np.array(names, object)[np.concatenate([user_E, left_L])]),
            "ts": pa.array(ts_E, pa.timestamp("us", tz="UTC")),
            "name": pa.array(["latency_ms"] * len(user_E) + ["unsubscribe"] * len(left_L)),
            "value": np.concatenate([value_E, np.ones(len(left_L))]),
        }
    )
