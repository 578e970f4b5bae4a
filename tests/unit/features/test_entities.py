"""Entity features on a hand-made table, and against the brute-force reference."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tritower import schema
from tritower.features import entities, step
from tritower.features.audit import run as audit
from tritower.features.config import FeaturesConfig

from tests.support import tiny_dataset

FOUND = [  # text, label, value; 0 and 1 are queries, 2 and 3 titles
    (0, "TITLE", "registered nurse"), (0, "SENIORITY", "senior"), (0, "PLACE", "texas"), (0, "COMPANY", "acme"),
    (1, "SKILL", "java"), (1, "SKILL", "sql"), (1, "EMPLOYMENT", "part time"), (1, "PLACE", "boston"), (1, "COMPANY", "globex"),
    (2, "TITLE", "nurse"), (2, "TITLE", "registered nurse"), (2, "SENIORITY", "entry"), (2, "SENIORITY", "middle"),
    (3, "SKILL", "java"), (3, "TITLE", "java developer"), (3, "EMPLOYMENT", "part time"),
]  # fmt: skip


def write(folder: Path, found: list[tuple[int, str, str]]) -> Path:
    folder.mkdir(parents=True)
    rows = [
        {"text": text, "label": label, "value": value, "start": i, "end": i + 1} for i, (text, label, value) in enumerate(found)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.ENTITIES.arrow()), folder / "entities.parquet")
    return folder


def test_by_hand(tmp_path: Path) -> None:
    jobs = {"company": ["Acme, Inc.", "Initech"], "city": ["Austin", None], "region": ["TX", "MA"], "country": ["US", None]}
    pq.write_table(pa.table(jobs), tmp_path / "jobs.parquet")
    found = entities.Entities.read(write(tmp_path / "e", FOUND), tmp_path, texts=5, jobs=2)
    out_FN = np.full((len(entities.NAMES), 3), np.nan, np.float32)
    query, title, job, level = ([0, 1, 4], [2, 3, 2], [0, 1, 0], [3, -1, 0])  # text 4 has no entities
    arrays = (np.array(values, np.int32) for values in (query, title, job, level))
    entities.compare(found.table, *arrays, out_FN)
    got = [{n: float(v) for n, v in zip(entities.NAMES, out_FN[:, i], strict=True) if not np.isnan(v)} for i in range(3)]
    senior, middle = 3, 2
    assert got[0] == {
        "entity_title_overlap": 1.0, "entity_title_exact": 0.0, "entity_title_words": 1.0, "entity_company_overlap": 1.0,
        "entity_place_overlap": 1.0, "seniority_query_distance": middle - senior, "seniority_user_distance": middle - 3,
    }  # fmt: skip
    # The job's places (Massachusetts) and its employer have no entity of the same name: nothing to compare with.
    assert got[1] == {"entity_skill_overlap": 0.5, "entity_skill_exact": 0.0, "entity_employment_overlap": 1.0}
    assert got[2] == {"seniority_user_distance": 2.0}


def test_every_row_equals_brute_force(tmp_path: Path) -> None:
    folder = tiny_dataset.build(tmp_path / "in", requests=40)
    values = {"TITLE": ["registered nurse", "nurse", "cook"], "SKILL": ["java"], "COMPANY": ["acme", "initech"],
              "PLACE": ["massachusetts", "boston", "us"], "SENIORITY": ["entry", "senior"], "EMPLOYMENT": ["night"],
              "QUALIFICATION": ["rn"]}  # fmt: skip
    rng = np.random.default_rng(0)
    texts = pq.read_metadata(folder / "dataset" / "texts.parquet").num_rows
    found = [(t, label, v) for t in range(texts) for label, vs in values.items() for v in vs if rng.random() < 0.4]
    write(folder / "entities", found)
    step.run(
        dataset=folder / "dataset", embeddings=folder / "embeddings", features=folder / "features",
        entities=folder / "entities", config=FeaturesConfig(),
    )  # fmt: skip
    table = pq.read_table(folder / "features" / "test")
    assert all(table.column(name).null_count < table.num_rows for name in entities.NAMES)
    report = audit(
        dataset=folder / "dataset", embeddings=folder / "embeddings", features=folder / "features",
        entities=folder / "entities", rows=200,
    )  # fmt: skip
    assert report.clean, report.mismatches
    assert report.unknown == []
