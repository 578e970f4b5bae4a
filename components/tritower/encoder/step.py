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
import torch
from numpy.lib.format import open_memmap

from tritower import config as knobs
from tritower import storage
from tritower.encoder import backends, buckets, finetuning, models, tables, training
from tritower.encoder.config import EmbedConfig, FinetuneConfig
from tritower.errors import StepError
from tritower.logs import phase, progress

LOG = logging.getLogger(__name__)


def embed(*, dataset: str | Path, embeddings: str | Path, config: EmbedConfig, encoder: str | Path = "") -> dict[str, Any]:
    """Embed every text of `dataset`/texts.parquet once.

    Writes `embeddings`/matrix.npy and encoder.json (see schema.py), whole or not at all.

    Args:
        encoder: folder, distribution or hub id of the model; `config.model` when empty.

    Returns:
        The content of encoder.json.
    """
    texts = tables.texts(Path(dataset))
    folder = models.find(str(encoder) or config.model)
    with phase(LOG, "load encoder"):
        model = models.load(folder, _device())
        backend = backends.TorchEncoder(model, config.precision)
    start = time.perf_counter()
    with storage.atomic_directory(embeddings) as out, phase(LOG, "embed") as counts:
        cut = _write_matrix(out / "matrix.npy", texts, backend, config.token_budget)
        info = {
            "name": str(encoder) or config.model,
            "hash": models.content_hash(folder),
            "dim": models.dimension(model),
            "texts": len(texts),
            "normalised": True,
            "backend": backend.name,
            "truncated": cut,
            "seconds": round(time.perf_counter() - start, 3),
        }
        storage.write_json(out / "encoder.json", info)
        counts["texts"] = len(texts)
    return info


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
        return _under_torchrun(dataset, model, config, report, metrics)
    base = models.find(config.model)
    if config.epochs == 0:
        return _hand_on(base, Path(model), report, metrics)
    start = time.perf_counter()
    finetuning.join_group()
    texts = tables.texts(Path(dataset))
    encoder = models.load(base, _device())
    with phase(LOG, "training examples") as counts:
        clicks = finetuning.examples(Path(dataset), config, texts, encoder)
        counts["clicks"] = len(clicks)
    first = finetuning.rank() == 0
    if first:
        with phase(LOG, "measure before"):
            judge = finetuning.Judge(Path(dataset), config, texts)
            before = judge(encoder)
    checkpoints = Path(config.checkpoints or Path(model).with_name(f".{Path(model).name}.checkpoints"))
    with phase(LOG, "fine-tune") as counts:
        facts = training.train(encoder, clicks, texts, config, checkpoints)
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
        **{name: facts[name] for name in ("clicks", "triplets", "steps", "loss", "seconds", "resumed_at")},
        **{f"before_{name}": value for name, value in before.figures.items()},
        **{f"after_{name}": value for name, value in after.figures.items()},
    }
    with storage.atomic_directory(model) as out:
        if accepted:
            encoder.save_pretrained(str(out), create_model_card=False, safe_serialization=True)
        else:
            _copy_model(base, out)
        note = {"base": config.model, "base_hash": models.content_hash(base), "verdict": words, "numbers": numbers}
        storage.write_json(out / "finetune.json", note | {"settings": facts["settings"]})
    _write_results(numbers, finetuning.page(judge, before, after, facts, config), report, metrics)
    if not config.checkpoints:
        shutil.rmtree(checkpoints, ignore_errors=True)
    return numbers


def leave_group() -> None:
    """Leave torchrun's process group, where one was joined."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _device() -> str:
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def _write_matrix(path: Path, texts: list[str], backend: backends.TorchEncoder, token_budget: int) -> int:
    tokens, cut = backends.tokenise(backend.model, texts)
    batches = buckets.exact_length_batches(np.fromiter(map(len, tokens), np.int32, len(tokens)), token_budget)
    matrix_TD = open_memmap(path, mode="w+", dtype=np.float16, shape=(len(texts), models.dimension(backend.model)))
    for batch in progress(batches, name="embed", unit="batches"):
        matrix_TD[batch] = backend.encode(np.stack([tokens[i] for i in batch]).astype(np.int64))
    matrix_TD.flush()
    return cut


def _hand_on(base: Path, model: Path, report: str | Path, metrics: str | Path) -> dict[str, Any]:
    with storage.atomic_directory(model) as out:
        _copy_model(base, out)
        storage.write_json(
            out / "finetune.json", {"base_hash": models.content_hash(base), "verdict": "epochs is 0: not trained"}
        )
    LOG.info("epochs is 0: the base model is handed on as it is")
    numbers = {"accepted": 0, "steps": 0}
    _write_results(
        numbers, "<!doctype html><title>Encoder</title><p>epochs is 0: the base model was handed on.</p>\n", report, metrics
    )
    return numbers


def _copy_model(base: Path, out: Path) -> None:
    shutil.copytree(base, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "README.md", "*.bin", "*.pt", "export"))


def _write_results(numbers: dict[str, Any], page: str, report: str | Path, metrics: str | Path) -> None:
    if metrics:
        storage.write_json(metrics, numbers)
    if report:
        with storage.atomic_file(report) as file:
            file.write_text(page, encoding="utf-8")


def _under_torchrun(
    dataset: str | Path, model: str | Path, config: FinetuneConfig, report: str | Path, metrics: str | Path
) -> dict[str, Any]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={config.processes}"]
    command += ["-m", "tritower.encoder", "finetune", f"--dataset={dataset}", f"--model={model}"]
    command += [f"--report={report}", f"--metrics={metrics}", f"--config={json.dumps(knobs.to_dict(config))}"]
    threads = max(1, (os.cpu_count() or 1) // config.processes)
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, check=False)
    if done.returncode:
        raise StepError(
            f"fine-tuning on {config.processes} processes ended with code {done.returncode}",
            where="torchrun",
            remedy="The first error of its log, above, says why.",
        )
    numbers: dict[str, Any] = storage.read_json(Path(model) / "finetune.json").get("numbers", {})
    return numbers
