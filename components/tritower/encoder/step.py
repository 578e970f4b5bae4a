"""The steps of the encoder: locations in, locations and numbers out."""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from numpy.lib.format import open_memmap
from pyarrow import feather
from sentence_transformers import SentenceTransformer

from tritower import config as knobs
from tritower import gpus, storage, threads
from tritower.encoder import backends, checkpoint, distributed, embedding, finetuning, launching, models, tables, training
from tritower.encoder.cache import VectorCache, keys_of
from tritower.encoder.config import EmbedConfig, FinetuneConfig
from tritower.errors import ArtifactError
from tritower.jobs import open_launcher
from tritower.logs import phase
from tritower.pages.page import Page, html
from tritower.processes import Node
from tritower.storage import staging
from tritower.storage.staging import Staged

LOG = logging.getLogger(__name__)


def embed(
    *,
    dataset: str | Path,
    embeddings: str | Path,
    config: EmbedConfig,
    encoder: str | Path = "",
    artifact_uri: str = "",
    checkpoints: str = "",
) -> dict[str, Any]:
    """Embed every text of `dataset`/texts.parquet once. All places are locations of any scheme.

    With a fine-tuned encoder, texts that are descriptions and nothing else are embedded by the model it was tuned from (see
    `EmbedConfig.descriptions`); the hash in encoder.json is then of both.

    Writes `embeddings`/matrix.npy, encoder.json (see schema.py) and index.arrow (the 128-bit key of each row's text), whole or
    not at all. Under torchrun every process calls this and computes its share; with `processes` above 1 it starts them itself.
    Nodes without a common disk need `embeddings` or `config.cache` in a store: there they find each other's vectors.

    An empty text gets the vector of its special tokens; a text longer than the model reads is cut, and counted.

    Args:
        encoder: location, distribution or hub id of the model; `config.model` when empty.
        artifact_uri: where `embeddings` will be kept in the end; finished vectors are kept beside it until all are there,
            unless `config.cache` keeps them. Empty for `embeddings` itself.
        checkpoints: location for these vectors instead, which the caller removes.

    Returns:
        The content of encoder.json; in processes other than the first, nothing.

    Raises:
        ArtifactError: there is no such model, or not the one that the encoder was fine-tuned from.
        DataError: the dataset holds no text.
        StepError: one of several processes failed.
        StorageError: another process is writing `embeddings`.
    """
    with _keeping(artifact_uri, embeddings, config.cache.rstrip("/") or checkpoints) as vectors:
        if _starts(config):
            inputs = {"dataset": str(dataset), "encoder": str(encoder)}
            open_launcher().run(launching.job("embed", config, inputs, {"embeddings": str(embeddings)}, vectors))
            return _told(embeddings, "encoder.json")
        torch.set_num_threads(threads.chosen())
        threads.cap_libraries()
        node, device = distributed.join()
        wanted = str(encoder) or config.model
        with staging.staged({"dataset": str(dataset), **_stored(wanted)}, {"embeddings": str(embeddings)}, node=node) as here:
            folder = models.find(str(here.paths.get("base", wanted)))
            with contextlib.nullcontext() if config.cache else _alone(vectors, "the vectors of another embed step"):
                return _embed(here["dataset"], here["embeddings"], folder, wanted, config, vectors, device)


def _starts(config: EmbedConfig | FinetuneConfig) -> bool:
    """Whether this process is to start the processes that do the work.

    Raises:
        ConfigError: there are fewer GPUs here than processes.
    """
    starts = config.processes > 1 and "WORLD_SIZE" not in os.environ
    if starts:
        gpus.check(config.processes, torch.cuda.device_count())
    return starts


@contextlib.contextmanager
def _keeping(artifact_uri: str, written: str | Path, chosen: str) -> Iterator[str]:
    """A location for what the work has done so far, until `written` is whole: see `storage.kept`.

    Processes of torchrun all take the same place without looking at it. Where none is chosen and the run's store is out of
    reach, it is beside `written`.
    """
    one_of_many = "WORLD_SIZE" in os.environ
    with contextlib.nullcontext(chosen) if one_of_many else storage.kept(artifact_uri or written, chosen) as found:
        place = found or storage.beside(written)
        yield place
        if not found and not distributed.rank():
            storage.remove(place)


def _stored(model: str) -> dict[str, str]:
    """The input `base` where a model is in a store; other names are for `models.find`."""
    return {} if storage.is_local(model) else {"base": model}


def _alone(location: str, purpose: str) -> contextlib.AbstractContextManager[Any]:
    """Keep a local folder to this run; the first of several processes does so for all."""
    if distributed.rank() or not storage.is_local(location):
        return contextlib.nullcontext()
    return storage.exclusive(storage.local_path(location), purpose)


def _embed(
    dataset: Path, embeddings: Path, folder: Path, wanted: str, config: EmbedConfig, root: str, device: torch.device
) -> dict[str, Any]:
    """See `embed`; the vectors are kept below the location `root`."""
    start = time.perf_counter()
    texts = tables.texts(dataset)
    parts = _parts(folder, dataset, len(texts), config)
    filled = [_fill(part, texts, config, root, device) for part in parts]
    distributed.wait()
    if distributed.rank():
        return {}
    main = filled[0]
    dims = {one.cache.dim for one in filled}
    if len(dims) > 1:
        raise ArtifactError(
            f"vectors of {sorted(dims)} entries for one matrix",
            where=", ".join(str(part.folder) for part in parts),
            remedy="Set `descriptions` to same.",
        )
    hashes = [part.identity for part in parts]
    identity = hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    account = _account(folder)
    info = {
        "name": account.get("name", wanted),
        "hash": identity,
        "dim": main.cache.dim,
        "texts": len(texts),
        "normalised": True,
    }
    info |= {"backend": main.backend, **main.agreement}
    info |= {"new_texts": sum(one.new for one in filled), "truncated": sum(one.cut for one in filled)}
    if len(parts) > 1:
        info["descriptions"] = account["base"]
    with storage.atomic_directory(embeddings) as out, phase(LOG, "gather"):
        _gather([(one.cache, part.text_U) for one, part in zip(filled, parts, strict=True)], texts, out)
        info["seconds"] = round(time.perf_counter() - start, 3)
        storage.write_json(out / "encoder.json", info)
    return info


class _Part(NamedTuple):
    """The texts that one model embeds: its folder, its content's hash, their numbers."""

    folder: Path
    identity: str
    text_U: npt.NDArray[np.int64]


class _Filled(NamedTuple):
    """A cache that holds the vectors of a part, how they were computed, how many were new and how many were cut."""

    cache: VectorCache
    backend: str
    agreement: dict[str, float]
    new: int
    cut: int


def _parts(folder: Path, dataset: Path, texts: int, config: EmbedConfig) -> list[_Part]:
    """All texts for the model of `folder`, except descriptions for the one that it was tuned from.

    Raises:
        ArtifactError: that model is not to be had.
    """
    identity = models.content_hash(folder)
    note = _account(folder)
    tuned = "base" in note and note["base_hash"] != identity
    described_T = tables.only_descriptions(dataset) if tuned and config.descriptions == "base" else np.zeros(texts, np.bool_)
    if not described_T.any():
        return [_Part(folder, identity, np.arange(texts))]
    remedy = "Install the one that finetune had, or set the knob `descriptions` of embed to same."
    try:
        base = models.find(note["base"])
    except ArtifactError as error:
        raise ArtifactError(
            "the model that the encoder was fine-tuned from is not here", where=note["base"], remedy=remedy
        ) from error
    if models.content_hash(base) != note["base_hash"]:
        raise ArtifactError("this is not the model that the encoder was fine-tuned from", where=str(base), remedy=remedy)
    return [
        _Part(folder, identity, np.flatnonzero(~described_T)),
        _Part(base, note["base_hash"], np.flatnonzero(described_T)),
    ]


def _fill(part: _Part, texts: list[str], config: EmbedConfig, root: str, device: torch.device) -> _Filled:
    """Embed what the cache of a part's model lacks."""
    chosen = [texts[number] for number in part.text_U]
    with phase(LOG, "load encoder") as counts:
        model = models.load(part.folder, device)
        local = config.cache and storage.is_local(config.cache)
        kept = storage.local_path(config.cache) / part.identity[:32] if local else None
        backend, agreement = embedding.choose(model, part.folder, chosen, config, kept)
        counts.update(backend=backend.name, overlap=round(agreement["top10_overlap"], 3))
    cache = VectorCache(f"{root}/{part.identity[:32]}/{backend.name}", models.dimension(model))
    with phase(LOG, "embed") as counts:
        new, cut = embedding.fill(cache, chosen, model, backend, segment_texts=config.segment_texts)
        counts.update(texts=len(chosen), new=new)
    return _Filled(cache, backend.name, agreement, new, cut)


def _gather(parts: list[tuple[VectorCache, npt.NDArray[np.int64]]], texts: list[str], out: Path) -> None:
    """Write matrix.npy and index.arrow."""
    keys = keys_of(texts)
    shape = (len(texts), parts[0][0].dim)
    matrix_TD = open_memmap(out / "matrix.npy", mode="w+", dtype=np.float16, shape=shape)
    for cache, text_U in parts:
        cache.gather(keys.take(pa.array(text_U)), matrix_TD, text_U)
        embedding.check_finite(matrix_TD, cache.uri)
    matrix_TD.flush()
    table = pa.table({"text": np.arange(len(texts), dtype=np.int32), "key": keys})
    feather.write_feather(table, out / "index.arrow", "uncompressed")


def finetune(
    *,
    dataset: str | Path,
    model: str | Path,
    config: FinetuneConfig,
    report: str | Path = "",
    metrics: str | Path = "",
    artifact_uri: str = "",
    checkpoints: str = "",
) -> dict[str, Any]:
    """Fine-tune the encoder on the clicks of the train split and keep the better of old and new.

    Writes the folder `model` (a sentence-transformers model in safetensors, and finetune.json with the figures), and, where
    given, the HTML `report` and the figures as JSON in `metrics`. With `epochs` 0 the base model is handed on as it is.

    Under torchrun every process calls this; with `processes` above 1 it starts torchrun itself. A run that was killed goes on
    from its checkpoint when it is started again with the same `artifact_uri`.

    Args:
        artifact_uri: where `model` will be kept in the end; checkpoints are kept beside it unless the config names a place.
            Empty for `model` itself.
        checkpoints: location for checkpoints instead, which the caller removes.

    Returns:
        The numbers of finetune.json.

    Raises:
        DataError: no usable click in the train window, or no usable search in the validation window.
        StepError: a training process failed.
        StorageError: another process trains with these checkpoints.
    """
    outputs = {"model": str(model), "report": str(report), "metrics": str(metrics)}
    with _keeping(artifact_uri, model, config.checkpoints or checkpoints) as place:
        if _starts(config):
            open_launcher().run(launching.job("finetune", config, {"dataset": str(dataset)}, outputs, place))
            done: dict[str, Any] = _told(model, "finetune.json")["numbers"]
            return done
        torch.set_num_threads(threads.chosen())
        threads.cap_libraries()
        node, device = distributed.join(deterministic=config.deterministic)
        with staging.staged({"dataset": str(dataset), **_stored(config.model)}, outputs, node=node) as here:
            base = models.find(str(here.paths.get("base", config.model)))
            if config.epochs == 0:
                return _hand_on(base, config.model, here)
            with _alone(place, "the checkpoints of another fine-tuning"):
                return _learn(here, base, config, place, node, device)


def _learn(
    here: Staged, base: Path, config: FinetuneConfig, checkpoints: str, node: Node, device: torch.device
) -> dict[str, Any]:
    """Measure, train, measure again and write; see `finetune`."""
    start, dataset = time.perf_counter(), here["dataset"]
    folder, store = (
        (storage.local_path(checkpoints), "") if storage.is_local(checkpoints) else (here.folder / "checkpoints", checkpoints)
    )
    node.once("checkpoint", lambda: checkpoint.fetch(store, folder) if store else "")
    texts = tables.texts(dataset)
    encoder = models.load(base, device)
    with phase(LOG, "training examples") as counts:
        clicks = finetuning.examples(dataset, config, texts, encoder)
        counts["clicks"] = len(clicks)
    first = distributed.rank() == 0
    if first:
        with phase(LOG, "measure before"):
            judge = finetuning.Judge(dataset, config, texts)
            before = judge(encoder)
    with phase(LOG, "fine-tune") as counts:
        facts = training.train(encoder, *finetuning.with_titles(clicks, texts, config), config, folder, store)
        counts.update(steps=facts["steps"], triplets=facts["triplets"], loss=round(facts["loss"], 4))
    if not first:
        return {}
    with phase(LOG, "measure after"):
        after = judge(encoder)
    accepted, words = finetuning.verdict(before.figures, after.figures, config.max_title_loss)
    LOG.log(logging.INFO if accepted else logging.WARNING, "%s", words)
    facts |= {"clicks": len(clicks), "seconds": time.perf_counter() - start, "settings": knobs.to_dict(config)}
    numbers = {
        "accepted": int(accepted),
        "measured_on_randomised": int(judge.randomised),
        **{name: facts[name] for name in ("clicks", "triplets", "steps", "loss", "seconds", "resumed_at")},
        **{f"before_{name}": value for name, value in before.figures.items()},
        **{f"after_{name}": value for name, value in after.figures.items()},
    }
    name = f"{config.model}, fine-tuned" if accepted else config.model
    note = _note(name, base, config.model, words, numbers)
    sample = texts[:: max(1, len(texts) // 256)] if config.export else []
    _write_model(here["model"], encoder if accepted else None, base, note | {"settings": facts["settings"]}, sample)
    _write_results(numbers, finetuning.page(judge, before, after, facts, config), here)
    return numbers


def _write_model(model: Path, encoder: SentenceTransformer | None, base: Path, note: dict[str, Any], sample: list[str]) -> None:
    """Write the folder `model`: `encoder`, or a copy of `base` where it is None, and finetune.json.

    Args:
        sample: texts on which the graph for serving is compared with PyTorch; no graph is written when empty.
    """
    with storage.atomic_directory(model) as out:
        if encoder is None:
            ignored = shutil.ignore_patterns(".*", "README.md", "*.bin", "*.pt", "export")
            shutil.copytree(base, out, dirs_exist_ok=True, ignore=ignored)
        else:
            encoder.save_pretrained(str(out), create_model_card=False, safe_serialization=True)
            if sample:
                with phase(LOG, "export"):
                    backends.export(models.load(out), out / "export", sample)
        storage.write_json(out / "finetune.json", note)


def _account(folder: Path) -> dict[str, Any]:
    """What finetune wrote of the model in `folder`; nothing for a model that is not from there."""
    note = folder / "finetune.json"
    return storage.read_json(note) if note.exists() else {}


def _hand_on(base: Path, name: str, here: Staged) -> dict[str, Any]:
    if distributed.rank():
        return {}
    verdict = "Kept the base encoder: fine-tuning is switched off (no epochs)"
    LOG.info("%s", verdict)
    numbers = {"accepted": 0, "steps": 0}
    _write_model(here["model"], None, base, _note(name, base, name, verdict, numbers), [])
    nothing = Page(name="Encoder: fine-tuning", verdict=verdict, tone="", lines=[], sections=[])
    _write_results(numbers, html(nothing), here)
    return numbers


def _note(name: str, base: Path, given: str, verdict: str, numbers: dict[str, Any]) -> dict[str, Any]:
    """finetune.json: the base is the first of its line, for a model that is tuned again day by day."""
    earlier = _account(base)
    if "base" not in earlier:
        earlier = {"base": given, "base_hash": models.content_hash(base)}
    first = {key: earlier[key] for key in ("base", "base_hash")}
    return {"name": name, **first, "verdict": verdict, "numbers": numbers}


def _write_results(numbers: dict[str, Any], page: str, here: Staged) -> None:
    if "metrics" in here.paths:
        storage.write_json(here["metrics"], numbers)
    if "report" in here.paths:
        storage.write_text(here["report"], page)


def _told(location: str | Path, name: str) -> dict[str, Any]:
    """A JSON file of the folder that a job wrote."""
    with tempfile.TemporaryDirectory(prefix="told-") as scratch:
        found: dict[str, Any] = storage.read_json(storage.fetch(f"{location}/{name}", Path(scratch) / name))
    return found
