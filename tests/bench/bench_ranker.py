"""Training the ranker: ours, a Dataset over a data frame's rows as one writes it first, a DataLoader over numpy rows.

All sides train the same three towers and head with AdamW and dropout for one epoch at one batch size, on one thread. The
memory row counts what each million impressions adds to a training process; the two-process row compares CPU seconds.
"""

import tempfile
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from timing import paired
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tritower import schema, storage
from tritower.ranker import batches, launch, normaliser, rows
from tritower.ranker.config import RankerConfig
from tritower.ranker.network import ClickModel
from tritower.ranker.place import Place
from tritower.ranker.training import Trainer

DIM, FEATURES, PER_REQUEST, BATCH = 384, 60, 15, 2048
TEXTS, QUERIES, ROWS = 16_000, 9_000, 61_440
SHARE = 10  # the slow sides get one row in SHARE


def cases() -> list[dict]:
    """`ranker.train`, `ranker.loader`, `ranker.memory` and `ranker.ddp`."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_log(folder, {"train": ROWS, "validation": 1500})
        names = rows.feature_names(folder / "features")
        fitted = normaliser.fit(rows.sample(folder / "features/train", names, limit=20_000), kind="quantile")
        data = rows.write(folder / "features/train", folder / "rows", names=names, normaliser=fitted)
        few = rows.write(folder / "features/validation", folder / "few", names=names, normaliser=fitted)
        matrix_TD, _ = rows.load_embeddings(folder / "embeddings")
        small = ROWS // SHARE // BATCH * BATCH
        table = np.concatenate(
            [matrix_TD[data.query[:small]], matrix_TD[data.document[:small]], np.nan_to_num(data.feature[:small])], axis=1
        ).astype(np.float32)
        label = data.clicked[:small].astype(np.float32)
        train = paired(
            "ranker.train",
            ours=lambda: ours(data, few, matrix_TD),
            naive=lambda: loop(DataLoader(OfRows(matrix_TD, data, small), batch_size=BATCH, shuffle=True)),
            peer=lambda: loop(DataLoader(OfNumpy(table, label), batch_size=BATCH, shuffle=True)),
            rounds=3,
            scale={"naive": ROWS / small, "peer": ROWS / small},
        )
        order = batches.epoch_order(data, seed=0, epoch=0, shuffle="requests")
        parts = np.split(order[: ROWS // BATCH * BATCH], ROWS // BATCH)
        loader = paired(
            "ranker.loader",
            ours=lambda: exhaust(batches.gather(data, part, matrix_TD) for part in parts),
            naive=lambda: exhaust(DataLoader(OfRows(matrix_TD, data, small), batch_size=BATCH, shuffle=True)),
            rounds=3,
            scale={"naive": ROWS / small},
        )
        loader["share_of_step"] = loader["ours"] / train["ours"]
        return [train, loader, memory(data, table), two_processes(folder)]


def exhaust(batches: Iterable[object]) -> None:
    """Make every batch and keep none, as training does."""
    deque(batches, maxlen=0)


def ours(data: rows.Rows, few: rows.Rows, matrix_TD: np.ndarray) -> None:
    """One epoch."""
    config = RankerConfig(epochs=1, batch_size=BATCH, evaluations_per_epoch=1, occupation_classes=0)
    network = ClickModel(config, dim=DIM, features=FEATURES)
    Trainer(
        network, train=data, validation=few, matrix_TD=matrix_TD, config=config, place=Place(), checkpoints="", failures=Path()
    ).run()


class OfRows(Dataset):
    """One dict of tensors per row of a data frame."""

    def __init__(self, matrix_TD: np.ndarray, data: rows.Rows, size: int) -> None:
        self.matrix_TD = matrix_TD.astype(np.float32)
        self.names = [f"feature_{number}" for number in range(FEATURES)]
        self.frame = pd.DataFrame(np.nan_to_num(data.feature[:size]).astype(np.float32), columns=self.names)
        self.frame["query"], self.frame["document"] = data.query[:size], data.document[:size]
        self.frame["clicked"] = data.clicked[:size].astype(np.float32)

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        values = self.frame.iloc[row]
        return {
            "query": torch.tensor(self.matrix_TD[int(values["query"])]),
            "document": torch.tensor(self.matrix_TD[int(values["document"])]),
            "feature": torch.tensor(values[self.names].to_numpy(dtype=np.float32)),
            "clicked": torch.tensor(values["clicked"], dtype=torch.float32),
        }


class OfNumpy(Dataset):
    """One row of a table that holds both embeddings and the features."""

    def __init__(self, table: np.ndarray, label: np.ndarray) -> None:
        self.table, self.label = table, label

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.float32]:
        return self.table[row], self.label[row]


def loop(loader: DataLoader) -> None:
    """The usual loop over rows, every tower on every row."""

    def tower(width: int, *widths: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for after in widths:
            layers += [nn.Linear(width, after), nn.ReLU(), nn.Dropout(0.1)]
            width = after
        return nn.Sequential(*layers)

    config = RankerConfig()
    query, document = tower(DIM, *config.query_tower), tower(DIM, *config.document_tower)
    interaction = tower(FEATURES, *config.interaction_tower)
    width = 3 * config.query_tower[-1] + config.interaction_tower[-1]
    head = nn.Sequential(*tower(width, *config.head), nn.Linear(config.head[-1], 1))
    modules = nn.ModuleList([query, document, interaction, head])
    optimiser = torch.optim.AdamW(modules.parameters(), lr=1e-3)
    for batch in loader:
        if isinstance(batch, dict):
            q_BD, d_BD, f_BF, clicked_B = batch["query"], batch["document"], batch["feature"], batch["clicked"]
        else:
            q_BD, d_BD, f_BF = batch[0].split([DIM, DIM, FEATURES], dim=1)
            clicked_B = batch[1]
        q_BE, d_BE = query(q_BD), document(d_BD)
        logit_B = head(torch.cat([q_BE, d_BE, q_BE * d_BE, interaction(f_BF)], dim=1)).squeeze(1)
        nn.functional.binary_cross_entropy_with_logits(logit_B, clicked_B).backward()
        optimiser.step()
        optimiser.zero_grad()


def memory(data: rows.Rows, table: np.ndarray) -> dict:
    """GiB that a million impressions take in the arrays of each side; texts and embeddings are there once."""
    mine = sum(array.nbytes for array in vars(data).values()) / len(data) * 1e6 / 2**30
    naive = table.nbytes / len(table) * 1e6 / 2**30
    return {
        "name": "ranker.memory", "ours": mine, "naive": naive, "peer": None, "unit": "GiB per 1M impressions",
        "ratio_naive": naive / mine, "ratio_peer": None, "limit_share": None,
    }  # fmt: skip


def two_processes(folder: Path) -> dict:
    """CPU seconds of one process against those of two gloo processes together, each at BATCH rows a step: the efficiency.

    What an epoch costs is the difference of a run of 12 epochs and one of 2: starting up is not counted.
    """
    spent = {}
    for processes in (1, 2):
        total = []
        for epochs in (2, 12):
            config = RankerConfig(
                epochs=epochs,
                batch_size=BATCH * processes,
                processes=processes,
                threads=1,
                evaluations_per_epoch=1,
                patience=99,
            )
            model = folder / f"model-{processes}-{epochs}"
            launch.run(
                features=folder / "features", embeddings=folder / "embeddings", model=model, failures=folder, config=config
            )
            total.append(storage.read_json(model / "metrics.json")["train_cpu_seconds"])
        spent[processes] = (total[1] - total[0]) / 10
    return {
        "name": "ranker.ddp", "ours": spent[2], "naive": spent[1], "peer": None, "unit": "CPU s",
        "ratio_naive": spent[1] / spent[2], "ratio_peer": None, "limit_share": spent[1] / spent[2],
    }  # fmt: skip


def write_log(folder: Path, sizes: dict[str, int]) -> None:
    """Random features and clicks in the shape of a real log: PER_REQUEST rows a search, documents by popularity."""
    random = np.random.default_rng(0)
    storage.write_json(folder / "embeddings/encoder.json", {"name": "random", "hash": "0", "dim": DIM})
    matrix_TD = random.normal(size=(TEXTS, DIM))
    np.save(folder / "embeddings/matrix.npy", (matrix_TD / np.linalg.norm(matrix_TD, axis=1, keepdims=True)).astype(np.float16))
    names = [f"feature_{number}" for number in range(FEATURES)]
    storage.write_json(folder / "features/features.json", {"version": 1, "features": [{"name": name} for name in names]})
    for split, n in sizes.items():
        request = np.arange(n) // PER_REQUEST
        keys = {
            "row": np.arange(n), "request": request, "ts": np.arange(n), "user": request % 1000, "job": np.arange(n) % 1000,
            "query_text": random.integers(0, QUERIES, n // PER_REQUEST + 1)[request],
            "document_text": QUERIES + (random.random(n) ** 2 * (TEXTS - QUERIES)).astype(np.int64),
            "position": np.arange(n) % PER_REQUEST + 1, "clicked": random.random(n) < 0.08, "randomised": np.zeros(n, bool),
        }  # fmt: skip
        columns = {c.name: pa.array(keys[c.name]).cast(schema.arrow_type(c.type)) for c in schema.FEATURE_KEYS.columns}
        columns |= {name: pa.array(random.normal(size=n), pa.float32()) for name in names}
        (folder / "features" / split).mkdir()
        pq.write_table(pa.table(columns), folder / "features" / split / "part-00000.parquet")
