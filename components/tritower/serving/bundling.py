"""From the outputs of a training run to a bundle: exports, document towers, catalogue, state, under one manifest.

It needs torch (the exports are compared with it); what it writes does not.
"""

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino
import pyarrow.parquet as pq

from tritower import storage
from tritower.encoder import backends, fidelity, halving, models
from tritower.errors import ArtifactError
from tritower.logs import phase
from tritower.ranker import documents, export
from tritower.ranker.online import OnlineRanker
from tritower.serving import bundle, encoding, golden, resident, slimming
from tritower.serving.bundle import Bundle
from tritower.serving.config import Precision
from tritower.serving.encoding import TextEncoder
from tritower.serving.retrieval import Retrieval
from tritower.serving.rival import Rival
from tritower.storage import manifest

LOG = logging.getLogger(__name__)
_SAMPLE = 256
_HALVES_AGREE = 0.9999  # cosine; rounding weights costs 1e-6, another kind of network much more
_FACTS = ("dim", "max_tokens", "fidelity")
_ONE_RUN = "Give the outputs of one training run."


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Folders of one training run.

    Attributes:
        model: the ranker's.
        encoder: the text encoder's, as finetune wrote it.
        dataset: what ingest wrote.
        embeddings: the vectors of its texts.
        features: the rows that the model was trained or tested on.
        entities: of the dataset's texts; None where the features have none.
        state: after the last event; None for that of `features`.
        baseline: an XGBoost model of the step `baseline`, to show its order beside; None for none.
    """

    model: Path
    encoder: Path
    dataset: Path
    embeddings: Path
    features: Path
    entities: Path | None = None
    state: Path | None = None
    baseline: Path | None = None


def write(sources: Sources, out: Path) -> Bundle:
    """Write a bundle, whole or not at all.

    Raises:
        ArtifactError: the folders are not of one run, or an export differs from torch.
    """
    given = (
        sources.model, sources.encoder, sources.dataset, sources.embeddings, sources.features, sources.entities,
        sources.baseline,
    )  # fmt: skip
    manifest.check(*(folder for folder in given if folder))
    with storage.atomic_directory(out) as folder:
        facts = storage.read_json(sources.embeddings / "encoder.json")
        with phase(LOG, "export the ranker") as counts:
            counts.update(export.write(
                model=sources.model, features=sources.features, embeddings=sources.embeddings, out=folder / "ranker"
            ))  # fmt: skip
        with phase(LOG, "document towers") as counts:
            ranker = OnlineRanker.load(folder / "ranker")
            counts["jobs"] = documents.write(
                ranker=ranker, dataset=sources.dataset, embeddings=sources.embeddings, out=folder / "documents"
            )
        with phase(LOG, "catalogue") as counts:
            counts.update(slimming.write(sources.dataset, sources.embeddings, sources.entities, folder, facts))
        with phase(LOG, "retrieval index") as counts:
            counts.update(Retrieval.write(sources.dataset, sources.embeddings, folder))
        with phase(LOG, "export the encoder"):
            _encoder(sources, folder / "encoder", str(facts["hash"]))
        _state(sources.state or sources.features, folder / "state")
        golden.write(sources.dataset, folder / "questions")
        if sources.baseline:
            Rival.check(sources.baseline)
            shutil.copytree(sources.baseline, folder / "baseline", ignore=shutil.ignore_patterns(".*"))
        with phase(LOG, "arrays that processes share"):
            resident.write(folder)
        return bundle.write(folder)


def _encoder(sources: Sources, out: Path, identity: str) -> None:
    """Write the part `encoder` from the export beside the model, which is made where there is none."""
    own = models.content_hash(sources.encoder)
    note = sources.encoder / "finetune.json"
    base = str(storage.read_json(note).get("base_hash", "")) if note.exists() else ""
    both = hashlib.sha256(f"{own} {base}".encode()).hexdigest()  # descriptions are embedded by the model tuned from
    if identity not in (own, both):
        problem = f"the embeddings are of encoder {identity}, this one is {own}"
        raise ArtifactError(problem, where=str(sources.encoder), remedy=_ONE_RUN)
    model = models.load(sources.encoder)
    made, values = sources.encoder / "export", pq.read_table(sources.dataset / "texts.parquet", columns=["value"])["value"]
    sample = values[:: max(1, len(values) // _SAMPLE)].to_pylist()
    if made.is_dir():
        shutil.copytree(made, out)
    else:
        backends.export(model, out, sample)
    facts = storage.read_json(out / "export.json")
    (out / "export.json").unlink()
    own_facts = {"encoder": identity, "prompt": _prompt(sources.encoder), **{name: facts[name] for name in _FACTS}}
    storage.write_json(out / encoding.FILE, own_facts)
    backends.save_graph(backends.with_int8_weights(openvino.Core().read_model(out / encoding.FLOAT)), out / encoding.INT8)
    halved = halving.write(model, out)
    found = facts["fidelity"] | _fidelity(out, sample, ("fp16", "bf16", "int8") if halved else ("bf16", "int8"))
    if halved and found["fp16"]["cosine_min"] < _HALVES_AGREE:
        LOG.info("the weights in float16 agree with fp32 to a cosine of %.6f only: left out", found.pop("fp16")["cosine_min"])
        halving.remove(out)
    storage.write_json(out / encoding.FILE, own_facts | {"fidelity": found})


def _fidelity(encoder: Path, sample: Sequence[str], others: Sequence[Precision]) -> dict[str, dict[str, float]]:
    """Of the precisions that the export says nothing of, against the graph in fp32, which it has compared with torch."""
    exact_SD = TextEncoder(encoder, "fp32")(sample)
    return {name: fidelity.compare(TextEncoder(encoder, name)(sample), exact_SD) for name in others}


def _prompt(encoder: Path) -> str:
    """What the model puts before every text."""
    file = encoder / "config_sentence_transformers.json"
    facts: Mapping[str, Any] = storage.read_json(file) if file.exists() else {}
    return str((facts.get("prompts") or {}).get(facts.get("default_prompt_name") or "", "") or "")


def _state(source: Path, out: Path) -> None:
    folder = source if (source / "state.json").exists() else source / "state"
    manifest.check(folder)
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(".*"))
