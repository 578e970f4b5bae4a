"""From a model folder to what `online.OnlineRanker` loads: weights without torch, and probes that say whether they are whole.

Legend: N rows, T texts, D width of a text embedding, F features, R searches.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import nn

from tritower import storage
from tritower.errors import ArtifactError, DataError
from tritower.ranker import artifact, online, rows
from tritower.ranker.artifact import Artifact
from tritower.ranker.batches import document_keys, document_vectors, mapped
from tritower.ranker.network import ScaledLinear, TextTower, TripleTower
from tritower.ranker.online import TOLERANCE, OnlineRanker
from tritower.ranker.scoring import Scorer
from tritower.storage import manifest

logger = logging.getLogger(__name__)
_SEARCHES, _CANDIDATES = 200, 20  # of each sample
_PROBES = 6  # searches of each sample that are kept
_OWN = ("config.json", "features.json", "encoder.json", "model.safetensors")
Array = NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """Rows to compare on, those of a search side by side; `matrix_TD` has the vectors of the texts that the others number."""

    matrix_TD: Array
    query_N: Array
    document_N: Array
    description_N1: Array
    feature_NF: Array
    request_N: Array

    def probes(self, loaded: Artifact) -> dict[str, Array]:
        """The sample as `online.differ` takes it, with torch's scores."""
        _, first_R, request_N = np.unique(self.request_N, return_index=True, return_inverse=True)
        scorer = Scorer(loaded, self.matrix_TD)
        key_N = document_keys(mapped(self.document_N), mapped(self.description_N1))
        described = loaded.config.network.descriptions
        return {
            "query_RD": self.matrix_TD[self.query_N[first_R]].astype(np.float32),
            "document_ND": document_vectors(mapped(self.matrix_TD), key_N, described=described).numpy(),
            "request_N": request_N.astype(np.int64),
            "feature_NF": self.feature_NF,
            "score_N": scorer.score(self.query_N, self.document_N, self.feature_NF, self.description_N1),
        }


def write(*, model: Path, features: Path, embeddings: Path, out: Path) -> dict[str, float]:
    """Export a trained model, and compare the export with torch on searches of the log and on random ones.

    Args:
        model: folder of a trained model.
        features: a features folder of the kind it was trained on, whose last split is taken for the searches of the log.
        embeddings: the embeddings of that folder's texts.
        out: folder to write.

    Returns:
        The largest difference between a probability and torch's, `real` and `random`.

    Raises:
        ArtifactError: features or embeddings are not the model's, or the export differs from torch by more than the tolerance.
        DataError: there is no row to compare on.
    """
    manifest.check(features, embeddings)
    loaded = artifact.load(model)
    matrix_TD, encoder = rows.load_embeddings(embeddings)
    names = rows.feature_names(features)
    loaded.expect(names=names, encoder=encoder, where=str(features))
    facts, tensors = pieces(loaded, identity(model))
    exported = OnlineRanker(facts, tensors)
    samples = {"real": _real(features, names, matrix_TD, loaded), "random": _random(loaded, matrix_TD.shape[1])}
    probes = {name: sample.probes(loaded) for name, sample in samples.items()}
    difference = {name: online.differ(exported, **probe) for name, probe in probes.items()}
    if not max(difference.values()) <= TOLERANCE:
        problem = f"the export's scores differ from torch's by up to {max(difference.values()):.2g}, more than {TOLERANCE:g}"
        raise ArtifactError(problem, where=str(model), remedy="Report it, with the model.")
    facts |= {"largest_difference": difference, "compared_rows": {name: len(one["score_N"]) for name, one in probes.items()}}
    kept = _together([_first(probe, _PROBES) for probe in probes.values()])
    with storage.atomic_directory(out) as folder:
        storage.write_json(folder / "join.json", facts)
        tensors |= {f"probe.{name}": value for name, value in kept.items()}
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "join.safetensors")
    logger.info("%s exported to %s; largest difference to torch: %s", model, out, difference)
    return difference


def pieces(loaded: Artifact, model: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """What `OnlineRanker` is made of, for a model of the hash `model`."""
    facts = {
        "version": online.VERSION,
        "model": model,
        "encoder": loaded.encoder,
        "features": loaded.names,
        "descriptions": loaded.config.network.descriptions,
        "members": len(loaded.members),
        "examination": loaded.examination(),
    }
    tensors: dict[str, Array] = {"normaliser.knot": loaded.normaliser.knot_FK, "normaliser.value": loaded.normaliser.value_FK}
    for number, member in enumerate(loaded.members):
        tensors |= {f"{number}.{name}": value for name, value in _member(member.relevance)}
    return facts, tensors


def identity(model: Path) -> str:
    """The hash of a model folder: of the files that decide a score."""
    digests = {name: manifest.digest(model / name) for name in _OWN}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _member(tower: TripleTower) -> Iterator[tuple[str, Array]]:
    yield from _text_tower("query", tower.query_tower)
    yield from _text_tower("document", tower.document_tower)
    if tower.query_tower.relatedness_CC is not None:
        yield "relatedness", tower.query_tower.relatedness_CC.detach().numpy()
    if tower.cross is not None:
        for number, (down, up) in enumerate(zip(tower.cross.down, tower.cross.up, strict=True)):
            yield f"cross.down.{number}.weight", _array(down.weight)
            yield f"cross.up.{number}.weight", _array(up.weight)
            yield f"cross.up.{number}.bias", _array(up.bias)
    yield from _layers("interaction", tower.interaction_tower)
    yield from _layers("head", tower.head)
    yield "interaction_to_head.weight", _array(tower.interaction_to_head.weight)
    yield "interaction_to_head.bias", _array(tower.interaction_to_head.bias)
    yield "logit.weight", _array(tower.logit.weight)
    yield "logit.bias", _array(tower.logit.bias)


def _text_tower(name: str, tower: TextTower) -> Iterator[tuple[str, Array]]:
    yield from _layers(f"{name}.tower", tower.tower)
    yield f"{name}.to_head", _array(tower.to_head.weight)
    if tower.to_class is not None:
        yield f"{name}.to_class.weight", _array(tower.to_class.weight)
        yield f"{name}.to_class.bias", _array(tower.to_class.bias)


def _layers(name: str, stack: nn.Module) -> Iterator[tuple[str, Array]]:
    for number, layer in enumerate(layer for layer in stack.modules() if isinstance(layer, nn.Linear)):
        scale = layer.scale if isinstance(layer, ScaledLinear) else 1.0
        yield f"{name}.{number}.weight", _array(scale * layer.weight)
        yield f"{name}.{number}.bias", _array(layer.bias)


def _array(tensor: Any) -> Array:
    array: Array = tensor.detach().numpy()
    return array


def _real(features: Path, names: list[str], matrix_TD: Array, loaded: Artifact) -> Sample:
    """Searches of the last split, evenly spaced over its first rows."""
    described = loaded.config.network.descriptions
    columns = ["request", "query_text", "document_text", *([rows.DESCRIPTION] if described else [])]
    split = features / rows.splits(features)[-1]
    batch, feature_NF = next((one for one in rows.stream(split, columns, names) if len(one[1])), (None, np.empty((0, 0))))
    if batch is None:
        raise DataError("there is no row to compare the export on", where=str(split), remedy="Give features with searches.")
    request_N = np.asarray(batch.column("request"))
    request_R = np.unique(request_N)
    kept_N = np.isin(request_N, request_R[:: -(-len(request_R) // _SEARCHES)])
    query_N, document_N = (np.asarray(batch.column(name))[kept_N] for name in ("query_text", "document_text"))
    description_N1 = rows.description_texts(batch, wanted=described)[kept_N]
    order_N = np.argsort(request_N[kept_N], kind="stable")
    kept = (query_N, document_N, description_N1, feature_NF[kept_N], request_N[kept_N])
    return Sample(matrix_TD, *(array[order_N] for array in kept))


def _random(loaded: Artifact, dim: int) -> Sample:
    """Searches with random texts; features in and around the range of train, some missing for rows, some for whole searches."""
    random = np.random.default_rng(0)
    knot_FK, texts = loaded.normaliser.knot_FK, 2000
    matrix_TD = random.normal(size=(texts, dim))
    matrix_TD /= np.linalg.norm(matrix_TD, axis=1, keepdims=True)
    total, features = _SEARCHES * _CANDIDATES, len(knot_FK)
    low_F, high_F = knot_FK[:, 0], knot_FK[:, -1]
    feature_NF = low_F + (high_F - low_F) * random.uniform(-0.1, 1.1, (total, features))
    missing_RF = random.choice([0.0, 0.3, 1.0], p=[0.6, 0.2, 0.2], size=(_SEARCHES, features))
    feature_NF[random.random((total, features)) < np.repeat(missing_RF, _CANDIDATES, axis=0)] = np.nan
    description_N1 = random.integers(-texts // 3, texts, (total, int(loaded.config.network.descriptions)))
    return Sample(
        matrix_TD.astype(np.float16),
        np.repeat(random.integers(0, texts, _SEARCHES), _CANDIDATES),
        random.integers(0, texts, total),
        np.maximum(description_N1, -1),
        feature_NF.astype(np.float32),
        np.repeat(np.arange(_SEARCHES), _CANDIDATES),
    )


def _first(probe: dict[str, Array], searches: int) -> dict[str, Array]:
    kept_N = probe["request_N"] < searches
    return {name: value[:searches] if name == "query_RD" else value[kept_N] for name, value in probe.items()}


def _together(probes: list[dict[str, Array]]) -> dict[str, Array]:
    shift = np.cumsum([0, *(len(probe["query_RD"]) for probe in probes)])
    shifted = [probe | {"request_N": probe["request_N"] + more} for probe, more in zip(probes, shift, strict=False)]
    return {name: np.concatenate([probe[name] for probe in shifted]) for name in shifted[0]}
