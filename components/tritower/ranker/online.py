"""A trained ranker for one search at a time, without torch: query tower, document tower and join from an exported model.

    ranker = OnlineRanker.load(export)
    query = ranker.query(query_vector)                              # once per query
    table = ranker.documents(document_vectors)                      # once per job, see documents.py
    scores = ranker.score(query, table, rows, features)             # probabilities of a click, as the step `score` gives them

`export.py` writes the folder:

join.json          {"version", "model", "encoder": {...}, "features": [names in order], "descriptions", "members",
                    "examination", "largest_difference": {"real", "random"}, "compared_rows": {"real", "random"}}
join.safetensors   normaliser.knot, normaliser.value; per member N: N.query.*, N.document.*, N.relatedness, N.cross.*,
                   N.interaction.*, N.head.*, N.logit.*, with the towers' factor on embeddings folded in; probe.*: searches and
                   the scores that torch gives them

The towers' matrices are multiplied by NumPy's BLAS, on as many threads as OPENBLAS_NUM_THREADS says: 1 for a server that
answers several searches at once; the join's by `products.py`. Any number of threads may call one `OnlineRanker`.

Legend: N candidates of a search, F features, D width of a text embedding, J documents, M members, T width of a document's row
for all members, H width of the head's first layer, C classes.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tritower import storage
from tritower.errors import ArtifactError
from tritower.ranker import joining
from tritower.ranker.joining import Floats, QueryContext, Weights, plain
from tritower.ranker.normaliser import Normaliser
from tritower.storage import manifest

VERSION = 2
TOLERANCE = 1e-6
"""Largest difference to torch's score that an export may show, when it is written and when it is loaded."""
_PROBES = ("query_RD", "document_ND", "request_N", "feature_NF", "score_N")
_REMEDY = "Export the model again (tritower.ranker.export)."


class Query:
    """A query as the members see it; made by `OnlineRanker.query`."""

    def __init__(self, contexts: list[QueryContext]) -> None:
        self.contexts = contexts


class OnlineRanker:
    """The exported model; `load` makes one.

    Attributes:
        model: hash of the model folder that was exported.
        encoder: description of the encoder whose embeddings it reads.
        names: the features in order.
        examination: probability that a position is looked at, position 1 first; empty without position bias.
        described: a document's vector is the embedding of its title and company, then that of its description.
    """

    def __init__(self, facts: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        self.model, self.encoder, self.names = str(facts["model"]), dict(facts["encoder"]), list(facts["features"])
        self.examination, self.described = list(facts["examination"]), bool(facts["descriptions"])
        self._maps = Normaliser(tensors["normaliser.knot"], tensors["normaliser.value"]).maps
        self._members = [_Member(_below(tensors, f"{number}."), len(self.names)) for number in range(facts["members"])]
        self._starts = np.cumsum([0, *(member.width for member in self._members)])

    @staticmethod
    def load(folder: Path) -> "OnlineRanker":
        """Read an export, and check that it is whole and gives the scores that torch gave for its probes.

        Raises:
            StorageError: a file is missing or may not be read.
            ArtifactError: the folder was changed, is of another version, or scores otherwise than torch did.
        """
        return manifest.whole(folder, _load)

    @property
    def document_dim(self) -> int:
        """Width of a document's vector."""
        return int(self.encoder["dim"]) * (2 if self.described else 1)

    @property
    def width(self) -> int:
        """Columns of `documents`."""
        return int(self._starts[-1])

    def query(self, vector_D: NDArray[np.floating[Any]]) -> Query:
        """The query tower: what the members make of a query's embedding (D,)."""
        vector_1D = _matrix(vector_D, int(self.encoder["dim"]))
        return Query([member.context(vector_1D) for member in self._members])

    def documents(self, vector_JD: NDArray[np.floating[Any]]) -> Floats:
        """The document towers: (J, T) float32 from embeddings (J, D); with descriptions (J, 2 D), zeros where there is none."""
        vector_JD = _matrix(vector_JD, self.document_dim)
        return np.concatenate([member.document(vector_JD) for member in self._members], axis=1)

    def score(self, query: Query, table_JT: Floats, row_N: NDArray[np.integer[Any]], feature_NF: Floats) -> Floats:
        """Probability of a click at the top position (N,) float32.

        Args:
            query: who asks.
            table_JT: what `documents` gave, also as a memory-mapped file.
            row_N: row of the table for each candidate.
            feature_NF: raw features, NaN = missing. The transpose of an (F, N) array, as numpy.stack makes of columns, costs no
                copy.

        Raises:
            IndexError: there is no such row.
        """
        row_N = np.asarray(row_N, dtype=np.int64)
        feature_FN = np.ascontiguousarray(np.asarray(feature_NF, dtype=np.float32).T)
        assert feature_FN.shape == (len(self.names), len(row_N)), (feature_FN.shape, len(self.names), len(row_N))
        assert table_JT.shape[1] == self.width, (table_JT.shape, self.width)
        if len(row_N) and not 0 <= row_N.min() <= row_N.max() < len(table_JT):
            raise IndexError(f"rows {row_N.min()} to {row_N.max()} of a table of {len(table_JT)} documents")
        table_JT = np.asarray(table_JT)[:]
        table_JT.flags.writeable = False  # one type, thus one compiled function, for tables in memory and in a file
        given, out_N = joining.inputs(feature_FN, self._maps), np.zeros(len(row_N), dtype=np.float32)
        for member, context, start in zip(self._members, query.contexts, self._starts, strict=False):
            joining.add_scores(given, member.join, context, table_JT, row_N, start, out_N)
        return out_N / np.float32(len(self._members))


class _Member:
    """One network. Its arrays are made to fit each other here: machine code does not look at shapes."""

    def __init__(self, own: Mapping[str, NDArray[Any]], features: int) -> None:
        inner, outer = _stack(own, "interaction"), _stack(own, "head")
        self.query, self.offer = _below(own, "query."), _below(own, "document.")
        self.relatedness_CC, self.head_H = own.get("relatedness"), own["interaction_to_head.bias"]
        to_head_HI = own["interaction_to_head.weight"]
        cross = range(sum(name.startswith("cross.down") for name in own))
        down, up = ([own[f"cross.{side}.{layer}.weight"] for layer in cross] for side in ("down", "up"))
        no_layers = np.empty((0, 2 * features, 1))
        inputs, (first_WI, first_W) = 2 * features, inner[0]
        head = len(self.offer["to_head"])
        classes = len(self.offer["to_class.bias"]) if "to_class.bias" in self.offer else 0
        assert first_WI.shape == (len(first_W), inputs + 2 * bool(classes)), first_WI.shape
        assert to_head_HI.shape == (head, len(inner[-1][1])), to_head_HI.shape
        assert len(self.query["to_head"]) == len(self.head_H) == head, self.query["to_head"].shape
        assert self.relatedness_CC is None or self.relatedness_CC.shape == (classes, classes), self.relatedness_CC.shape
        assert all(
            one.shape[1] == inputs == len(other) and len(one) == other.shape[1] for one, other in zip(down, up, strict=True)
        )
        last = len(outer[-1][1]) if outer else head
        assert own["logit.weight"].shape == (1, last), own["logit.weight"].shape
        self.join = Weights(
            down_LFR=plain(np.stack([one.T for one in down]) if down else no_layers),
            up_LFR=plain(np.stack(up) if up else no_layers),
            up_LF=plain(np.stack([own[f"cross.up.{layer}.bias"] for layer in cross]) if up else no_layers[:, :, 0]),
            first_FW=plain(first_WI[:, :inputs].T),
            first_W=plain(first_W),
            match_2W=plain(first_WI[:, inputs:].T if classes else np.zeros((2, len(first_W)))),
            inner=np.array([len(bias) for _, bias in inner]),
            outer=np.array([head, *(len(bias) for _, bias in outer)]),
            head_IH=plain(to_head_HI.T),
            flat=joining.flat([*inner[1:], *outer]),
            logit_W=plain(own["logit.weight"][0]),
            logit=np.float32(own["logit.bias"][0]),
        )
        self.width = head + classes

    def context(self, vector_1D: Floats) -> QueryContext:
        head_1H, weight_1C = _text(self.query, vector_1D)
        class_1C = weight_1C @ self.relatedness_CC if self.relatedness_CC is not None else weight_1C
        return QueryContext(plain(head_1H[0] + self.head_H), plain(class_1C[0]))

    def document(self, vector_JD: Floats) -> Floats:
        return np.concatenate(_text(self.offer, vector_JD), axis=1)


def _text(own: Mapping[str, NDArray[Any]], value_JD: Floats) -> tuple[Floats, Floats]:
    """Share of the head (J, H) and probabilities of the classes (J, C) of a text tower."""
    for weight, bias in _stack(own, "tower"):
        value_JD = np.maximum(value_JD @ weight.T + bias, np.float32(0))
    share_JC = value_JD[:, :0]
    if "to_class.weight" in own:
        share_JC = value_JD @ own["to_class.weight"].T + own["to_class.bias"]
        share_JC = np.exp(share_JC - share_JC.max(axis=1, keepdims=True))
        share_JC /= share_JC.sum(axis=1, keepdims=True)
    return value_JD @ own["to_head"].T, share_JC


def _below(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _stack(own: Mapping[str, NDArray[Any]], name: str) -> list[tuple[Floats, Floats]]:
    """Weights (outputs, inputs) and biases of the layers `name`.0, `name`.1, ..."""
    count = sum(key.startswith(f"{name}.") and key.endswith(".bias") for key in own)
    layers = [(own[f"{name}.{number}.weight"], own[f"{name}.{number}.bias"]) for number in range(count)]
    assert all(len(weight) == len(bias) for weight, bias in layers), name
    assert all(weight.shape[1] == len(bias) for (_, bias), (weight, _) in itertools.pairwise(layers)), name
    return layers


def _matrix(vector: NDArray[np.floating[Any]], width: int) -> Floats:
    matrix = np.atleast_2d(np.asarray(vector, dtype=np.float32))
    assert matrix.shape[1] == width, (matrix.shape, width)
    return matrix


def _load(folder: Path) -> OnlineRanker:
    facts, weights = storage.read_json(folder / "join.json"), folder / "join.safetensors"
    if facts.get("version") != VERSION:
        problem = f"the export has version {facts.get('version')}, this tritower reads version {VERSION}"
        raise ArtifactError(problem, where=str(folder / "join.json"), remedy=_REMEDY)
    try:
        weights.open("rb").close()  # safetensors says that a file which may not be read is not there
        tensors = load_file(weights)
        probe = {
            name: tensors.pop(f"probe.{name}") for name in ("query_RD", "document_ND", "request_N", "feature_NF", "score_N")
        }
        ranker = OnlineRanker(facts, tensors)
        worst = differ(ranker, **probe)
    except (SafetensorError, KeyError, ValueError, AssertionError, IndexError) as error:
        problem = f"the export's parts do not fit each other: {error!r}"
        raise ArtifactError(problem, where=str(weights), remedy=_REMEDY) from error
    if not worst <= TOLERANCE:
        problem = f"a score differs by {worst:.2g} from the one that the export was written with, more than {TOLERANCE:g}"
        raise ArtifactError(problem, where=str(weights), remedy=_REMEDY)
    return ranker


def differ(
    ranker: OnlineRanker,
    *,
    query_RD: Floats,
    document_ND: Floats,
    request_N: NDArray[np.integer[Any]],
    feature_NF: Floats,
    score_N: Floats,
) -> float:
    """The largest difference between the ranker's scores and `score_N`; NaN where one is not finite.

    Args:
        ranker: what is tried.
        query_RD: embeddings of the queries of R searches.
        document_ND: vectors of the documents, one row each.
        request_N: search of each row, ascending.
        feature_NF: raw features.
        score_N: the scores that they should get.
    """
    table_NT, found_N = ranker.documents(document_ND), np.empty_like(score_N)
    for request in np.unique(request_N):
        row_n = np.flatnonzero(request_N == request)
        found_N[row_n] = ranker.score(ranker.query(query_RD[request]), table_NT, row_n, feature_NF[row_n])
    return float(np.abs(found_N - score_N).max())
