"""A small bundle made large: as many jobs as one likes, each with an id, and mostly a title and a document, of its own.

New jobs are made of the bundle's own. A title gets words of other titles, and for half of them a number, as adverts have;
three of ten repeat the title of another job. A company stands for a dozen jobs. Vectors lie around those that they are made
of, at a cosine of .94, so that they cluster as those do. Counters are those of jobs of the small bundle, for as many of the new
ones as of the old. Document towers, index and manifest come from the code that makes every bundle; users, searches and clicks
stay what they are, since they grow with the visitors and not with the catalogue.

Legend: J jobs, S jobs of the small bundle, X new texts, D dimensions.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tritower import storage
from tritower.ranker import documents
from tritower.ranker.online import OnlineRanker
from tritower.recommend import inputs
from tritower.recommend.clicks import Clicks
from tritower.schema import document_text
from tritower.serving import bundle, resident

_SAME_TITLE, _JOBS_OF_A_COMPANY, _NOISE, _CHUNK = 0.3, 12, 0.36, 65_536
_AS_IT_IS = ("ranker", "encoder", "baseline", "questions")


def write(small: Path, out: Path, jobs: int, *, seed: int = 0) -> bundle.Bundle:
    """Write a bundle of `jobs` jobs, those of `small` first; another seed gives other jobs and another version."""
    random = np.random.default_rng(seed)
    with storage.atomic_directory(out) as folder:
        for part in _AS_IT_IS:
            if (small / part).exists():
                shutil.copytree(small / part, folder / part)
        fingerprint = f"{seed:x}{jobs:x}".rjust(64, "e")
        source_J, title_of, companies = _dataset(small, folder, jobs, fingerprint, random)
        ranker = OnlineRanker.load(folder / "ranker")
        documents.write(ranker=ranker, dataset=folder / "dataset", embeddings=folder / "embeddings", out=folder / "documents")
        made_of = {"dataset": fingerprint, "encoder": storage.read_json(folder / "embeddings" / "encoder.json")["hash"]}
        inputs.index(folder / "dataset", folder / "embeddings").save(folder / "index", made_of)
        Clicks.open(small / "clicks").save(folder / "clicks", made_of)
        _entities(small, folder, title_of, fingerprint)
        _state(small, folder, source_J, companies, random)
        resident.write(folder)
        return bundle.write(folder)


def _dataset(
    small: Path, folder: Path, count: int, fingerprint: str, random: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any], list[str]]:
    """Write dataset and embeddings; the job that each is made of, the text that each text is made of, and new companies."""
    jobs, texts = pq.read_table(small / "dataset" / "jobs.parquet"), pq.read_table(small / "dataset" / "texts.parquet")
    old, more = len(jobs), count - len(jobs)
    source_N = random.integers(old, size=more)
    titles, companies = jobs["title"].to_pylist(), jobs["company"].to_pylist()
    words = sorted({word for title in titles for word in title.split() if word.isalpha()})
    new_companies = [f"{companies[n % old]} {words[n % len(words)]} {n}" for n in range(max(1, more // _JOBS_OF_A_COMPANY))]
    first, second = (random.integers(len(words), size=more).tolist() for _ in range(2))
    number, same = random.integers(100_000, size=more).tolist(), (random.random(more) < _SAME_TITLE).tolist()
    title_N = [
        titles[s] if is_same else f"{titles[s]} {words[a]} {words[b]}" + (f" #{n:05d}" if n % 2 else "")
        for s, is_same, a, b, n in zip(source_N.tolist(), same, first, second, number, strict=True)
    ]
    company_N = [new_companies[n] for n in random.integers(len(new_companies), size=more).tolist()]
    values = texts["value"].to_pylist()
    made_of, number_of = list(range(len(values))), {value: n for n, value in enumerate(values)}

    def numbers(own: list[str], kind: str) -> tuple[NDArray[Any], int]:
        """Of texts that are made of those of their jobs; how many there were before them."""
        before, from_S = len(values), jobs[f"{kind}_text"].to_pylist()
        for value, s in zip(own, source_N.tolist(), strict=True):
            if value not in number_of:
                number_of[value] = len(values)
                values.append(value)
                made_of.append(from_S[s])
        return np.array([number_of[value] for value in own], np.int32), before

    title_text, titles_from = numbers(title_N, "title")
    document_text_N, documents_from = numbers(
        [document_text(*pair) for pair in zip(title_N, company_N, strict=True)], "document"
    )
    at = np.arange(len(values))
    flags = {"is_title": (at >= titles_from) & (at < documents_from), "is_document": at >= documents_from}
    columns: dict[str, Any] = {"text": pa.array(at, pa.int32()), "value": pa.array(values, pa.string())}
    for name in ("is_query", "is_title", "is_document", "is_profile", "is_description"):
        own = np.zeros(len(values), np.bool_) if name not in flags else flags[name].copy()
        own[: len(texts)] = texts[name].to_numpy()
        columns[name] = own
    fresh = {
        "job": np.arange(old, count, dtype=np.int32), "job_id": [f"j{n:07d}" for n in range(old, count)], "title": title_N,
        "company": company_N, "title_text": title_text, "document_text": document_text_N,
    }  # fmt: skip
    taken = jobs.take(pa.array(source_N))
    for name, values_N in fresh.items():
        place = taken.schema.get_field_index(name)
        taken = taken.set_column(place, taken.schema.field(place), pa.array(values_N, taken.schema.field(place).type))
    (folder / "dataset").mkdir()
    whole = pa.concat_tables([jobs, taken]).combine_chunks()
    pq.write_table(whole, folder / "dataset" / "jobs.parquet", compression="zstd")
    pq.write_table(pa.table(columns), folder / "dataset" / "texts.parquet", compression="zstd")
    for name in ("users", "requests"):
        shutil.copyfile(small / "dataset" / f"{name}.parquet", folder / "dataset" / f"{name}.parquet")
    about = storage.read_json(small / "dataset" / "dataset.json")
    storage.write_json(folder / "dataset" / "dataset.json", about | {"fingerprint": fingerprint})
    _vectors(small, folder, np.array(made_of), fingerprint, random)
    return np.concatenate([np.arange(old), source_N]), np.array(made_of), new_companies


def _vectors(small: Path, folder: Path, made_of: NDArray[Any], fingerprint: str, random: np.random.Generator) -> None:
    old_XD = np.load(small / "embeddings" / "matrix.npy")
    old, dims = old_XD.shape
    (folder / "embeddings").mkdir()
    where = folder / "embeddings" / "matrix.npy"
    out_XD = np.lib.format.open_memmap(where, mode="w+", dtype=np.float16, shape=(len(made_of), dims))
    out_XD[:old] = old_XD
    for start in range(old, len(made_of), _CHUNK):
        base_XD = old_XD[made_of[start : start + _CHUNK]].astype(np.float32)
        base_XD += random.standard_normal(base_XD.shape, np.float32) * np.float32(_NOISE / np.sqrt(dims))
        out_XD[start : start + _CHUNK] = base_XD / np.linalg.norm(base_XD, axis=1, keepdims=True)
    out_XD.flush()
    about = storage.read_json(small / "embeddings" / "encoder.json")
    storage.write_json(folder / "embeddings" / "encoder.json", about | {"dataset": fingerprint, "texts": len(made_of)})


def _entities(small: Path, folder: Path, made_of: NDArray[Any], fingerprint: str) -> None:
    """Each text has the entities of that which it is made of."""
    if not (small / "entities").exists():
        return
    rows = pq.read_table(small / "entities" / "entities.parquet")
    text_E = rows["text"].to_numpy()
    order = np.argsort(text_E, kind="stable")
    start_T = np.searchsorted(text_E[order], np.arange(made_of.max() + 2))
    many_X = np.diff(start_T)[made_of]
    at = np.repeat(start_T[made_of] - np.concatenate([[0], np.cumsum(many_X)[:-1]]), many_X) + np.arange(many_X.sum())
    own = rows.take(pa.array(order[at]))
    own = own.set_column(0, rows.schema.field(0), pa.array(np.repeat(np.arange(len(made_of)), many_X), pa.int32()))
    (folder / "entities").mkdir()
    pq.write_table(own, folder / "entities" / "entities.parquet", compression="zstd")
    about = storage.read_json(small / "entities" / "entities.json")
    storage.write_json(folder / "entities" / "entities.json", about | {"dataset": fingerprint})


def _state(small: Path, folder: Path, source_J: NDArray[Any], companies: list[str], random: np.random.Generator) -> None:
    shutil.copytree(small / "state", folder / "state", ignore=shutil.ignore_patterns(".*"), copy_function=os.link)
    old = len(pq.read_table(small / "dataset" / "jobs.parquet", columns=["job_id"]))
    ids = pq.read_table(folder / "dataset" / "jobs.parquet", columns=["job_id"])["job_id"].combine_chunks()
    row_S = pc.index_in(ids.slice(0, old), value_set=_names(small, "job")).fill_null(-1).to_numpy()
    row_N = row_S[source_J[old:]]
    _counted(folder, "job", ids.slice(old).filter(pa.array(row_N >= 0)), row_N[row_N >= 0])
    from tritower.features.strings import normalise

    plain = normalise(pa.array(companies, pa.string()))
    _counted(folder, "company", plain, random.integers(len(_names(small, "company")), size=len(plain)))


def _names(small: Path, level: str) -> pa.Array:
    return pq.read_table(small / "state" / f"counters-{level}.parquet", columns=["name"])["name"].combine_chunks()


def _counted(folder: Path, level: str, names: pa.Array, rows: NDArray[Any]) -> None:
    """More keys of a level, with the counts of others."""
    path = folder / "state" / f"counters-{level}.parquet"
    table = pq.read_table(path)
    more = table.take(pa.array(rows)).set_column(0, table.schema.field(0), names)
    path.unlink()
    pq.write_table(pa.concat_tables([table, more]), path, compression="zstd")
