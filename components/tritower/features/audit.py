"""Does any feature see the future, or know the label? Three tests that users run on their own data.

* Brute force: random rows of a features folder are recomputed from the whole log (`reference`) and compared.
* Label shuffling: the labels of everything after a moment are shuffled and the features built anew. Rows up to that moment
  must come out the same: whoever knew a later label shows it here.

* Telling columns: no single feature, and no number of an id, may separate clicked rows from others nearly perfectly. The first
  two tests find faults of the features; this one finds those of the log, such as job ids that only clicked rows have.

The first two tests leave out features that tritower does not know, and all tests the columns that are no feature: both are
listed.
"""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower import schema, storage, telltale
from tritower.config import from_dict
from tritower.errors import ArtifactError
from tritower.features import source
from tritower.features.config import FeaturesConfig
from tritower.features.entities import Entities
from tritower.features.feature_state import FeatureState
from tritower.features.reference import Reference, Value
from tritower.features.state import MEANING
from tritower.features.tables import FeatureTables
from tritower.features.timeline import NO_TIME, Rows
from tritower.telltale import Told

logger = logging.getLogger(__name__)
TOLERANCE = 2e-5  # float32 sums of a few hundred products, and features are stored as float32
TOO_GOOD = 0.9
"""AUC of one column from which it is taken to tell the label; the best of the simulated logs reach .7."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What an audit found.

    Attributes:
        rows: rows recomputed by brute force.
        features: features compared in each.
        mismatches: per feature, how many of those rows differ, and one of them as (row, stored, recomputed).
        shuffled_rows: rows compared after shuffling later labels.
        leaking: features that changed when only later labels did.
        unknown: features that tritower cannot recompute.
        telling: columns that tell the label by themselves.
        unaudited: columns that no test looked at.
    """

    rows: int
    features: int
    mismatches: dict[str, tuple[int, tuple[int, Value, Value]]]
    shuffled_rows: int
    leaking: list[str]
    unknown: list[str]
    telling: list[Told]
    unaudited: list[str]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.mismatches and not self.leaking and not self.telling


def run(
    *,
    dataset: str | Path,
    embeddings: str | Path,
    features: str | Path,
    entities: str | Path | None = None,
    rows: int = 200,
    seed: int = 0,
    limit: float = TOO_GOOD,
) -> Report:
    """Audit a features folder against the dataset it was built from.

    Args:
        limit: AUC from which a single column is too good to be true, .5 to 1.

    Raises:
        ArtifactError: the folder does not belong to this dataset.
    """
    described = storage.read_json(Path(features) / "features.json")
    # Only the knobs that change values: a folder of an earlier version may name others.
    config = from_dict(FeaturesConfig, {name: described["config"][name] for name in MEANING})
    tables = FeatureTables.read(Path(dataset), Path(embeddings))
    found = Entities.read(entities, dataset, len(tables.texts), len(tables.jobs)) if entities else None
    log = read_log(Path(dataset))
    known = FeatureState(tables, config, found).layout.names
    stored = [feature["name"] for feature in described["features"]]
    names = [name for name in stored if name in known]
    rng = np.random.default_rng(seed)
    return Report(
        rows=min(rows, len(log)),
        features=len(names),
        mismatches=_brute_force(Reference(tables, log, config, found), Path(features), names, rows, rng),
        **_shuffle(FeatureState(tables, config, found), log, Path(features), names, rng),
        unknown=[name for name in stored if name not in known],
        telling=telltale.columns(Path(features), stored, schema.SPLITS, limit),
        unaudited=[name for name in _columns(Path(features)) if name not in {*stored, *telltale.KEYS}],
    )


def read_log(dataset: Path) -> Rows:
    """All impressions of a dataset in memory."""
    views_only = source.shows_views_only(dataset)
    parts = [
        source.rows(batch, counts=True, wanted=True, views_only=views_only)
        for split in schema.SPLITS
        for batch in source.batches(dataset / "impressions" / split)
    ]
    log = Rows.concat(parts)
    return dataclasses.replace(log, out=np.arange(len(log)))


def same(stored: Value, recomputed: Value) -> bool:
    """Equal up to float32 rounding; missing equals missing only."""
    if stored is None or recomputed is None:
        return stored is None and recomputed is None
    return abs(stored - recomputed) <= TOLERANCE * max(1.0, abs(recomputed))


def _brute_force(reference: Reference, features: Path, names: list[str], rows: int, rng: np.random.Generator) -> dict[str, Any]:
    chosen = np.sort(rng.choice(len(reference.log), min(rows, len(reference.log)), replace=False))
    at = {int(reference.log.row[i]): int(i) for i in chosen}
    differing: dict[str, tuple[int, tuple[int, Value, Value]]] = {}
    seen = 0
    for table in _parts(features, ["row", *names]):
        for record in table.filter(pc.is_in(table.column("row"), pa.array(list(at), pa.int64()))).to_pylist():
            expected = reference.row(at[record["row"]])
            seen += 1
            for name in names:
                if not same(record[name], expected[name]):
                    count, example = differing.get(name, (0, (record["row"], record[name], expected[name])))
                    differing[name] = (count + 1, example)
    if seen != len(at):
        raise ArtifactError(
            f"{len(at) - seen} of {len(at)} rows are not there", where=str(features), remedy="Build the features anew."
        )
    return differing


def _shuffle(
    feature_state: FeatureState, log: Rows, features: Path, names: list[str], rng: np.random.Generator
) -> dict[str, Any]:
    """Shuffle the labels at and after a moment in the middle of the log; rows up to it must not change."""
    moment = int(log.ts[len(log) // 2])
    later = np.flatnonzero(log.ts >= moment)
    delay = np.where(log.clicked_at[later] == NO_TIME, -1, log.clicked_at[later] - log.ts[later])
    delay = rng.permutation(delay)
    clicked_at = log.clicked_at.copy()
    clicked_at[later] = np.where(delay < 0, NO_TIME, log.ts[later] + delay)
    until = int(np.searchsorted(log.ts, moment, side="right"))
    altered = dataclasses.replace(log, clicked_at=clicked_at)
    leaking: set[str] = set()
    compared = 0
    where = [feature_state.layout.names.index(name) for name in names]
    stored = _rows_in_order(features, names)
    size = 65_536
    for start in range(0, len(log), size):
        batch = altered.take(slice(start, start + size))
        fresh_FN = feature_state.features(dataclasses.replace(batch, out=np.arange(len(batch)))).values_FN[where]
        rows = min(until - start, len(batch))
        if rows <= 0:
            break
        stored_FN = next(stored)[:, :rows]
        compared += rows
        different: npt.NDArray[np.bool_] = ~np.isclose(fresh_FN[:, :rows], stored_FN, rtol=1e-6, atol=1e-6, equal_nan=True)
        leaking |= {name for name, any_different in zip(names, np.any(different, axis=1), strict=True) if any_different}
    return {"shuffled_rows": compared, "leaking": sorted(leaking)}


def _rows_in_order(features: Path, names: list[str]) -> Iterator[npt.NDArray[np.float32]]:
    """The stored features in blocks of 65,536 rows over all parts, as (F, rows) with NaN for null."""
    held = np.empty((len(names), 0), np.float32)
    for table in _parts(features, names):
        columns = [table.column(name).to_numpy() for name in names]
        held = np.concatenate([held, np.stack(columns).astype(np.float32)], axis=1)
        while held.shape[1] >= 65_536:
            yield held[:, :65_536]
            held = held[:, 65_536:]
    yield held


def _columns(features: Path) -> list[str]:
    """The names of all columns of the folder's parts."""
    for split in schema.SPLITS:
        for part in storage.parquet_parts(features / split):
            names: list[str] = pq.read_schema(part).names
            return names
    return []


def _parts(features: Path, columns: list[str]) -> Iterator[pa.Table]:
    for split in schema.SPLITS:
        for part in storage.parquet_parts(features / split):
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(65_536, columns=columns):
                    yield pa.Table.from_batches([batch])
