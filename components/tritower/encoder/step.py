"""The steps of the encoder: files in, files and numbers out."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.lib.format import open_memmap
from pyarrow import feather
from sentence_transformers import SentenceTransformer

from tritower import config as knobs
from tritower import storage
from tritower.encoder import backends, distributed, embedding, finetuning, models, tables, training
from tritower.encoder.cache import VectorCache, keys_of
from tritower.encoder.config import EmbedConfig, FinetuneConfig
from tritower.errors import StepError
from tritower.logs import phase

LOG = logging.getLogger(__name__)


def embed(*, dataset: str | Path, embeddings: str | Path, config: EmbedConfig, encoder: str | Path = "") -> dict[str, Any]:
    """Embed every text of `dataset`/texts.parquet once.

    Writes `embeddings`/matrix.npy, encoder.json (see schema.py) and index.arrow (the 128-bit key of each row's text), whole or
    not at all. Under torchrun every process calls this and computes its share; with `processes` above 1 it starts torchrun
    itself.

    An empty text gets the vector of its special tokens; a text longer than the model reads is cut, and counted.

    Args:
        encoder: folder, distribution or hub id of the model; `config.model` when empty.

    Returns:
        The content of encoder.json; in processes other than the first, nothing.

    Raises:
        ArtifactError: there is no such model.
        DataError: the dataset holds no text.
        StepError: one of several processes failed.
    """
    if config.processes > 1 and "WORLD_SIZE" not in os.environ:
        _torchrun(config, "embed", f"--dataset={dataset}", f"--embeddings={embeddings}", f"--encoder={encoder}")
        info: dict[str, Any] = storage.read_json(Path(embeddings) / "encoder.json")
        return info
    start = time.perf_counter()
    distributed.join()
    texts = tables.texts(Path(dataset))
    wanted = str(encoder) or config.model
    folder = models.find(wanted)
    identity = models.content_hash(folder)
    with phase(LOG, "load encoder") as counts:
        model = models.load(folder, _device())
        memory = storage.local_path(config.cache) / identity[:32] if config.cache and storage.is_local(config.cache) else None
        backend, agreement = embedding.choose(model, folder, texts, config, memory)
        counts.update(backend=backend.name, overlap=round(agreement["top10_overlap"], 3))
    shards = Path(embeddings).with_name(f".{Path(embeddings).name}.shards")
    root = config.cache.rstrip("/") or str(shards)
    cache = VectorCache(f"{root}/{identity[:32]}/{backend.name}", models.dimension(model))
    with phase(LOG, "embed") as counts:
        new, cut = embedding.fill(cache, texts, model, backend, segment_texts=config.segment_texts)
        counts.update(texts=len(texts), new=new)
    distributed.wait()
    if distributed.rank():
        return {}
    info = {"name": _name(folder, wanted), "hash": identity, "dim": cache.dim, "texts": len(texts), "normalised": True}
    info |= {"backend": backend.name, **agreement, "new_texts": new, "truncated": cut}
    with storage.atomic_directory(embeddings) as out, phase(LOG, "gather"):
        _gather(cache, texts, out)
        info["seconds"] = round(time.perf_counter() - start, 3)
        storage.write_json(out / "encoder.json", info)
    shutil.rmtree(shards, ignore_errors=True)
    return info


def _gather(cache: VectorCache, texts: list[str], out: Path) -> None:
    """Write matrix.npy and index.arrow."""
    keys = keys_of(texts)
    matrix_TD = open_memmap(out / "matrix.npy", mode="w+", dtype=np.float16, shape=(len(texts), cache.dim))
    cache.gather(keys, matrix_TD)
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
) -> dict[str, Any]:
    """Fine-tune the encoder on the clicks of the train split and keep the better of old and new.

    Writes the folder `model` (a sentence-transformers model in safetensors, and finetune.json with the figures), and, where
    given, the HTML `report` and the figures as JSON in `metrics`. With `epochs` 0 the base model is handed on as it is.

    Under torchrun every process calls this; with `processes` above 1 it starts torchrun itself.

    Returns:
        The numbers of finetune.json.

    Raises:
        DataError: no usable click in the train window, or no usable search in the validation window.
        StepError: a training process failed.
    """
    if config.processes > 1 and "WORLD_SIZE" not in os.environ:
        _torchrun(config, "finetune", f"--dataset={dataset}", f"--model={model}", f"--report={report}", f"--metrics={metrics}")
        done: dict[str, Any] = storage.read_json(Path(model) / "finetune.json")["numbers"]
        return done
    base = models.find(config.model)
    if config.epochs == 0:
        return _hand_on(base, config.model, Path(model), report, metrics)
    distributed.join()
    return _learn(Path(dataset), Path(model), base, config, report, metrics)


def _learn(
    dataset: Path, model: Path, base: Path, config: FinetuneConfig, report: str | Path, metrics: str | Path
) -> dict[str, Any]:
    """Measure, train, measure again and write; see `finetune`."""
    start = time.perf_counter()
    texts = tables.texts(dataset)
    encoder = models.load(base, _device())
    with phase(LOG, "training examples") as counts:
        clicks = finetuning.examples(dataset, config, texts, encoder)
        counts["clicks"] = len(clicks)
    first = distributed.rank() == 0
    if first:
        with phase(LOG, "measure before"):
            judge = finetuning.Judge(dataset, config, texts)
            before = judge(encoder)
    checkpoints = Path(config.checkpoints or model.with_name(f".{model.name}.checkpoints"))
    with phase(LOG, "fine-tune") as counts:
        facts = training.train(encoder, *finetuning.with_titles(clicks, texts, config), config, checkpoints)
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
    note = _note(f"{config.model}, fine-tuned" if accepted else config.model, base, words, numbers)
    sample = texts[:: max(1, len(texts) // 256)] if config.export else []
    _write_model(model, encoder if accepted else None, base, note | {"settings": facts["settings"]}, sample)
    _write_results(numbers, finetuning.page(judge, before, after, facts, config), report, metrics)
    if not config.checkpoints:
        shutil.rmtree(checkpoints, ignore_errors=True)
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


def _device() -> str:
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def _name(folder: Path, given: str) -> str:
    """What a reader should see: a fine-tuned model's own account of itself, else the name it was asked for by."""
    note = folder / "finetune.json"
    return str(storage.read_json(note)["name"]) if note.exists() else given


def _hand_on(base: Path, name: str, model: Path, report: str | Path, metrics: str | Path) -> dict[str, Any]:
    verdict = "epochs is 0: the base model is handed on as it is"
    LOG.info("%s", verdict)
    numbers = {"accepted": 0, "steps": 0}
    _write_model(model, None, base, _note(name, base, verdict, numbers), [])
    _write_results(numbers, f"<!doctype html><title>Encoder</title><p>{verdict}</p>\n", report, metrics)
    return numbers


def _note(name: str, base: Path, verdict: str, numbers: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "base_hash": models.content_hash(base), "verdict": verdict, "numbers": numbers}


def _write_results(numbers: dict[str, Any], page: str, report: str | Path, metrics: str | Path) -> None:
    if metrics:
        storage.write_json(metrics, numbers)
    if report:
        with storage.atomic_file(report) as file:
            file.write_text(page, encoding="utf-8")


def _torchrun(config: EmbedConfig | FinetuneConfig, *arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={config.processes}"]
    command += ["-m", "tritower.encoder", *arguments, f"--config={json.dumps(knobs.to_dict(config))}"]
    threads = max(1, (os.cpu_count() or 1) // config.processes)
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, check=False, stdout=sys.stderr)
    if done.returncode:
        raise StepError(
            f"{arguments[0]} on {config.processes} processes ended with code {done.returncode}",
            where="torchrun",
            remedy="The first error of its log, above, says why.",
        )
