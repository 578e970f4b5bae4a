"""One clean log, and one with every request in random order and bad rows, made once for all tests of the room."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from tritower.simulate import step
from tritower.simulate.config import SimulateConfig


@dataclass(frozen=True)
class Log:
    place: Path
    config: SimulateConfig
    facts: dict
    rows: pd.DataFrame  # impressions with truth beside them, in file order
    jobs: pd.DataFrame
    users: pd.DataFrame


def generate(place: Path, **knobs) -> Log:
    config = SimulateConfig(**knobs)
    facts = step.run(out=place, config=config)
    rows = pq.read_table(place / "impressions").to_pandas()
    truth = pq.read_table(place / "truth").to_pandas()
    if not config.bad_rows:
        assert (rows[["request_id", "job_id"]] == truth[["request_id", "job_id"]]).all(axis=None)
        rows = pd.concat([rows, truth[["relevance", "click_probability"]]], axis=1)
    return Log(place, config, facts, rows, pd.read_parquet(place / "jobs.parquet"), pd.read_parquet(place / "users.parquet"))


@pytest.fixture(scope="session")
def log(tmp_path_factory) -> Log:
    return generate(tmp_path_factory.mktemp("clean") / "log", impressions=40_000, seed=3)


@pytest.fixture(scope="session")
def shuffled(tmp_path_factory) -> Log:
    return generate(tmp_path_factory.mktemp("shuffled") / "log", impressions=60_000, seed=4, randomised_share=1.0)
