"""A random two-layer BERT over a small vocabulary, and a log in which a query's words say which documents are clicked."""

import itertools
import multiprocessing
import shutil
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import schema
from tritower.encoder import backends, models

from tests.support import shared, tiny_encoder
from tests.support.tiny_encoder import COMPANIES, LEVELS, TRADES


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared.once(tmp_path_factory, "tiny-encoder", tiny_encoder.write) / "model"


@pytest.fixture(scope="session")
def exported_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model` with its graph beside it, as `finetune` writes it: converting is what takes long."""

    def make(place: Path) -> None:
        folder = Path(shutil.copytree(tiny_model, place / "model"))
        backends.export(models.load(folder), folder / "export", [f"{level} {trade}" for level in LEVELS for trade in TRADES])

    return shared.once(tmp_path_factory, "tiny-exported", make) / "model"


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Processes that start with the libraries loaded: a fresh interpreter spends seven seconds on importing them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tritower.encoder.step"])
    return context


def write_dataset(
    folder: Path, *, users: int = 30, requests: int = 160, clicked: bool = True, randomised: float = 0.0, seed: int = 0
) -> Path:
    """A dataset of schema.py: each request asks for a trade and shows four jobs, of which those of the trade are clicked.

    Args:
        randomised: share of the requests marked as shown in random order.
    """
    random = np.random.default_rng(seed)
    jobs = [(f"{level} {trade}", company) for level, trade, company in itertools.product(LEVELS, TRADES, COMPANIES)]
    texts = ["", *(f"{trade} wanted" for trade in TRADES), *(schema.document_text(*job) for job in jobs)]
    number = {text: i for i, text in enumerate(texts)}
    (folder / "impressions").mkdir(parents=True)
    flags = {flag: [True] * len(texts) for flag in ("is_query", "is_title", "is_document", "is_profile", "is_description")}
    table = pa.table({"text": range(len(texts)), "value": texts, **flags})
    pq.write_table(table.cast(schema.DATASET_TEXTS.arrow()), folder / "texts.parquet")
    columns = {"document_text": [number[schema.document_text(*job)] for job in jobs]}
    pq.write_table(
        pa.table({**columns, "title": [job[0] for job in jobs], "occupation": [job[0].split()[-1] for job in jobs]}),
        folder / "jobs.parquet",
    )
    rows: dict[str, list[dict[str, object]]] = {split: [] for split in schema.SPLITS}
    for request in range(requests):
        trade = TRADES[random.integers(len(TRADES))]
        user = int(random.integers(users))
        split = schema.SPLITS[sum(request >= share * requests for share in (0.6, 0.8))]
        mine = [j for j, job in enumerate(jobs) if trade in job[0]]
        others = [j for j, job in enumerate(jobs) if trade not in job[0]]
        shown = [*random.choice(mine, 1), *random.choice(others, 3, replace=False)]
        drawn = request % 10 < 10 * randomised
        for position, job in enumerate(random.permutation(shown), start=1):
            rows[split].append({
                "request": request, "user": user, "query_text": number[f"{trade} wanted"], "job": int(job),
                "document_text": number[schema.document_text(*jobs[job])], "position": position,
                "clicked": bool(clicked and job in mine), "randomised": drawn,
            })  # fmt: skip
    names = ["request", "user", "query_text", "document_text", "job", "position", "clicked", "randomised"]
    arrow = pa.schema([schema.DATASET_IMPRESSIONS.arrow().field(name) for name in names])
    for split, found in rows.items():
        (folder / "impressions" / split).mkdir()
        part = pa.Table.from_pylist(found, schema=arrow)
        pq.write_table(part, folder / "impressions" / split / "part-0.parquet", row_group_size=7)
    return folder


@pytest.fixture
def make_dataset() -> Callable[..., Path]:
    return write_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("log") / "dataset")
