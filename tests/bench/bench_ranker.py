"""Training the ranker: ours; a Dataset of rows, from a data frame or from arrays; a DataLoader over numpy rows.

All sides compute the same function with the same losses (checked: equal loss at equal weights), AdamW, clipping and moving
average, one epoch at one batch size on one thread. `ranker.train` is the default config on a log with occupation codes;
`ranker.train_plain` is the network without that second task. Ours multiplies in bf16 where the processor can (`precision`), the
rivals in float32, torch's default; `ratio_peer_bf16` is the numpy rival with autocast. Ours includes making the network, the
order of the rows and a validation, the rivals' epochs do not. The memory row counts what each million impressions adds to a
training process.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from ranker_rivals import Learner, OfArrays, OfFrame, OfNumpy, RowNetwork
from timing import paired
from torch.utils.data import DataLoader, Dataset
from tritower import schema, storage
from tritower.jobs import open_launcher
from tritower.ranker import batches, launching, losses, normaliser, preparation, rows
from tritower.ranker.config import LaunchConfig, NetworkConfig, RankerConfig, TrainingConfig
from tritower.ranker.network import ClickModel
from tritower.ranker.process_group import ProcessGroup
from tritower.ranker.training import Trainer

DIM, FEATURES, PER_REQUEST, BATCH = 384, 60, 15, 2048
TEXTS, QUERIES, ROWS, CLASSES = 16_000, 9_000, 61_440, 250
SHARE = 10  # the rivals get one row in SHARE


def cases() -> list[dict]:
    """`ranker.train`, `ranker.train_plain`, `ranker.loader`, `ranker.memory` and `ranker.ddp`."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_log(folder, {"train": ROWS, "validation": 1500})
        names = rows.feature_names(folder / "features")
        occupations = RankerConfig().network.occupation_classes
        found = preparation.scan(folder / "features/train", names, sample=20_000, occupations=occupations)
        fitted, class_K = normaliser.fit(found.raw_SF, kind="quantile"), found.class_K
        data, few = (
            preparation.write(folder / "features" / split, folder / split, names=names, normaliser=fitted, class_K=class_K)
            for split in ("train", "validation")
        )
        matrix_TD, _ = rows.load_embeddings(folder / "embeddings")
        train = compare("ranker.train", data, few, matrix_TD, classes=len(class_K))
        plain = compare("ranker.train_plain", data, few, matrix_TD, classes=0)
        source, order = batches.Source(data, matrix_TD), batches.epoch_order(data, seed=0, epoch=0)
        parts = np.split(order[: ROWS // BATCH * BATCH], ROWS // BATCH)
        rival = OfFrame(data, matrix_TD, ROWS // SHARE)
        loader = paired(
            "ranker.loader",
            ours=lambda: exhaust(source(part) for part in parts),
            naive=lambda: exhaust(DataLoader(rival, batch_size=BATCH, shuffle=True)),
            rounds=3,
            scale={"naive": SHARE},
        )
        loader["share_of_step"] = loader["ours"] / train["ours"]
        loader["share_of_plain_step"] = loader["ours"] / plain["ours"]
        return [train, plain, loader, memory(data, OfNumpy(data, matrix_TD, 2048).table), two_processes(folder)]


def compare(name: str, data: rows.Rows, few: rows.Rows, matrix_TD: np.ndarray, *, classes: int) -> dict:
    """Ours against the four rivals, in two paired runs."""
    config = RankerConfig(
        network=NetworkConfig(occupation_classes=classes, descriptions=False),
        training=TrainingConfig(epochs=1, batch_size=BATCH, evaluations_per_epoch=1),
    )
    same_loss(data, matrix_TD, config)
    scaled_TD, small = matrix_TD.astype(np.float32) * config.network.text_scale, ROWS // SHARE

    def rival(kind: type[Dataset], *, bf16: bool = False) -> Callable[[], None]:
        model = ClickModel(config.network, dim=DIM, features=FEATURES)
        learner, dataset = Learner(RowNetwork(model, config, DIM), config, bf16=bf16), kind(data, scaled_TD, small)
        return lambda: learner.epoch(DataLoader(dataset, batch_size=BATCH, shuffle=True))

    def epoch() -> None:
        model = ClickModel(config.network, dim=DIM, features=FEATURES)
        Trainer(
            model, train=batches.Source(data, matrix_TD), validation=batches.Source(few, matrix_TD), config=config,
            group=ProcessGroup(), checkpoints="", failures="never",
        ).run()  # fmt: skip

    scale = {"naive": SHARE, "peer": SHARE}
    row = paired(name, ours=epoch, naive=rival(OfFrame), peer=rival(OfNumpy), rounds=5, scale=scale)
    others = paired(name, ours=epoch, naive=rival(OfArrays), peer=rival(OfNumpy, bf16=True), rounds=5, scale=scale)
    return row | {"ratio_arrays": others["ratio_naive"], "ratio_peer_bf16": others["ratio_peer"]}


def same_loss(data: rows.Rows, matrix_TD: np.ndarray, config: RankerConfig) -> None:
    """Check that a rival with our weights has our loss.

    On rows with a document each: ours counts the class of a document once a batch, the rivals once a row.
    """
    torch.manual_seed(1)
    model = ClickModel(config.network, dim=DIM, features=FEATURES)
    with torch.no_grad():
        for weight in model.parameters():  # a part that starts at 0 would not be missed
            weight += 0.01 * torch.randn_like(weight)
    index = np.unique(data.document, return_index=True)[1][:BATCH]
    batch = batches.Source(data, matrix_TD)(index)
    said = model(*batch.inputs())
    mine = losses.click_loss(said.click_B, said.skip_B, batch.clicked_B)
    if said.query_QC is not None and said.document_JC is not None:
        mine = mine + config.training.occupation_weight * losses.class_loss(said.query_QC, said.document_JC, batch)
    scaled_TD = matrix_TD.astype(np.float32) * config.network.text_scale
    dataset = OfNumpy(data.take(index), scaled_TD, len(index))
    theirs = RowNetwork(model, config, DIM)(*next(iter(DataLoader(dataset, batch_size=len(index)))))
    torch.testing.assert_close(theirs, mine, rtol=1e-5, atol=1e-6)


def exhaust(batches: Iterable[object]) -> None:
    """Make every batch and keep none, as training does."""
    deque(batches, maxlen=0)


def memory(data: rows.Rows, table: np.ndarray) -> dict:
    """GiB that a million impressions take in the arrays of each side; texts and embeddings are there once."""
    mine = sum(array.nbytes for array in vars(data).values()) / len(data) * 1e6 / 2**30
    naive = table.nbytes / len(table) * 1e6 / 2**30
    return {
        "name": "ranker.memory", "ours": mine, "naive": naive, "peer": None, "unit": "GiB per 1M impressions",
        "ratio_naive": naive / mine, "ratio_peer": None, "limit_share": None,
    }  # fmt: skip


def two_processes(folder: Path) -> dict:
    """CPU seconds of an epoch by two gloo processes together, each at BATCH rows a step, against two trainings side by side
    that know nothing of each other: `ratio_naive` is the efficiency. `ratio_alone` compares with one training that has the
    machine to itself.

    An epoch is the difference of 8 epochs and 2, the least of three runs each: starting up is not counted, and what other work
    on the machine adds hardly is. Cores share caches and memory, which is no cost of working together.
    """

    def spent(name: str, processes: int, epochs: int) -> float:
        config = RankerConfig(
            training=TrainingConfig(
                epochs=epochs, batch_size=BATCH * processes, members=1, evaluations_per_epoch=1, patience=99
            ),
            launch=LaunchConfig(processes=processes, threads=1),
        )
        model = folder / name
        places = {"features": str(folder / "features"), "embeddings": str(folder / "embeddings"), "model": str(model)}
        open_launcher().run(launching.job(**places, config=config))
        return float(storage.read_json(model / "metrics.json")["train_cpu_seconds"])

    def side_by_side(epochs: int) -> float:
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(lambda name: spent(name, 1, epochs), ("left", "right"))) / 2

    ways = {"alone": lambda n: spent("one", 1, n), "beside": side_by_side, "together": lambda n: spent("two", 2, n)}
    runs = {(name, n): [] for name in ways for n in (2, 8)}
    for _ in range(3):
        for name, n in runs:
            runs[name, n].append(ways[name](n))
    alone, beside, together = ((min(runs[name, 8]) - min(runs[name, 2])) / 6 for name in ways)
    return {
        "name": "ranker.ddp", "ours": together, "naive": beside, "peer": None, "unit": "CPU s",
        "ratio_naive": beside / together, "ratio_peer": None, "limit_share": None, "ratio_alone": alone / together,
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
            "row": np.arange(n), "request": request, "ts": np.arange(n), "user": request % 1000,
            "query_text": random.integers(0, QUERIES, n // PER_REQUEST + 1)[request],
            "document_text": QUERIES + (random.random(n) ** 2 * (TEXTS - QUERIES)).astype(np.int64),
            "position": np.arange(n) % PER_REQUEST + 1, "clicked": random.random(n) < 0.08, "randomised": np.zeros(n, bool),
        }  # fmt: skip
        keys["job"] = keys["document_text"]
        columns = {c.name: pa.array(keys[c.name]).cast(schema.arrow_type(c.type)) for c in schema.FEATURE_KEYS.columns}
        columns["occupation_key"] = pa.array(keys["job"] % CLASSES, pa.int32())
        columns |= {name: pa.array(random.normal(size=n), pa.float32()) for name in names}
        (folder / "features" / split).mkdir()
        pq.write_table(pa.table(columns), folder / "features" / split / "part-00000.parquet")
