"""The Triple Tower Deep Pointwise network, for one device.

Legend of shapes: B rows of a batch, Q distinct queries and J distinct documents among them, D width of a text embedding (twice
that for a document with a description), H width of the head's first layer, F interaction features, I width of the interaction
tower's output, C occupation classes, K positions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tritower.ranker.config import NetworkConfig
from tritower.ranker.crossing import CrossLayers


class ScaledLinear(nn.Linear):
    """A linear layer of `scale` times the input; the weights are scaled instead, fewer numbers than a batch of texts."""

    def __init__(self, width_in: int, width: int, scale: float) -> None:
        super().__init__(width_in, width)
        self.scale = scale

    def forward(self, value: Tensor) -> Tensor:
        """(..., width_in) -> (..., width)."""
        return functional.linear(value, self.scale * self.weight, self.bias)


class Tower(nn.Sequential):
    """Fully connected layers with ReLU after each; `scale` is a factor on the input."""

    def __init__(self, width_in: int, widths: tuple[int, ...], scale: float = 1.0) -> None:
        layers: list[nn.Module] = []
        for number, width in enumerate(widths):
            linear = nn.Linear(width_in, width) if number or scale == 1 else ScaledLinear(width_in, width, scale)
            layers += [linear, nn.ReLU(inplace=True)]
            width_in = width
        super().__init__(*layers)


class TextTower(nn.Module):
    """A tower over text embeddings, with its own part of the head's first layer and, where asked for, an occupation classifier.

    A linear layer over a concatenation is a sum of linear layers over the parts; so this part runs once per distinct text
    too, not once per row.
    """

    def __init__(self, config: NetworkConfig, dim: int, widths: tuple[int, ...], *, related: bool = False) -> None:
        super().__init__()
        classes = config.occupation_classes
        self.tower = Tower(dim, widths, config.text_scale)
        self.to_head = nn.Linear(widths[-1], config.head[0], bias=False)
        self.to_class = nn.Linear(widths[-1], classes) if classes else None
        # How well an offered class serves who searches for another; at first they are not related.
        self.relatedness_CC = nn.Parameter(torch.eye(classes)) if classes and related else None
        self.widths = [config.head[0], classes]  # of the share of the head and of the class weights

    def forward(self, text_UD: Tensor) -> "TowerOutput":
        """What the tower makes of each text."""
        output_UE = self.tower(text_UD)
        if self.to_class is None:
            return TowerOutput(self.to_head(output_UE), output_UE[:, :0], None)
        log_UC = self.to_class(output_UE).float().log_softmax(dim=1)
        weight_UC = log_UC.exp()
        if self.relatedness_CC is not None:
            weight_UC = weight_UC @ self.relatedness_CC
        return TowerOutput(self.to_head(output_UE), weight_UC.to(output_UE.dtype), log_UC)


class TowerOutput(NamedTuple):
    """What a text tower makes of its texts: its share of the head, class weights (no columns without classes) and the classes'
    log probabilities.

    Class weights are probabilities, in the query tower multiplied by the relatedness of the classes.
    """

    head_UH: Tensor
    weight_UC: Tensor
    log_UC: Tensor | None


class ClickLogProbs(NamedTuple):
    """What a ClickModel says of a batch: log probabilities (B,) of a click and of no click as shown; those of the classes of
    the distinct queries and documents, or None."""

    click_B: Tensor
    skip_B: Tensor
    query_QC: Tensor | None
    document_JC: Tensor | None


class TripleTower(nn.Module):
    """Relevance of a document for a query: the logit of a click once the document is looked at.

    A query tower and a document tower over text embeddings and an interaction tower over the normalised features; their
    outputs are concatenated and go through one head. The text towers see each distinct
    text once; rows pick their results by index.
    """

    def __init__(self, config: NetworkConfig, *, dim: int, features: int) -> None:
        super().__init__()
        classes = config.occupation_classes
        self.query_tower = TextTower(config, dim, config.query_tower, related=True)
        offered = 2 * dim if config.descriptions else dim
        self.document_tower = TextTower(config, offered, config.document_tower)
        self.cross = CrossLayers(2 * features, config.cross_layers, config.cross_rank) if config.cross_layers else None
        self.interaction_tower = Tower(2 * features + 2 * bool(classes), config.interaction_tower)
        self.interaction_to_head = nn.Linear(config.interaction_tower[-1], config.head[0])
        self.head = nn.Sequential(nn.ReLU(inplace=True), Tower(config.head[0], config.head[1:]))
        self.logit = nn.Linear(config.head[-1], 1)
        self._reset_first_layer_of_head()

    def _reset_first_layer_of_head(self) -> None:
        # The three parts start as the one layer over the concatenation that they are.
        parts = [self.query_tower.to_head, self.document_tower.to_head, self.interaction_to_head]
        bound = 1 / math.sqrt(sum(part.in_features for part in parts))
        for part in parts:
            nn.init.uniform_(part.weight, -bound, bound)
        nn.init.uniform_(self.interaction_to_head.bias, -bound, bound)

    def forward(
        self,
        query_QD: Tensor,
        document_JD: Tensor,
        query_B: Tensor,
        document_B: Tensor,
        feature_BF: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Relevance logits (B,) float32; log probabilities of the classes of queries (Q, C) and documents (J, C) or None.

        Args:
            query_QD: embeddings of the distinct queries.
            document_JD: embeddings of the distinct documents, with `descriptions` followed by those of their descriptions.
            query_B: row of `query_QD` for each row of the batch.
            document_B: row of `document_JD` for each row of the batch.
            feature_BF: normalised features; NaN = missing.
        """
        queries, documents = self.query_tower(query_QD), self.document_tower(document_JD)
        # index_select: its gradient is 2.5 times as fast as that of indexing on a CPU. Part by part: slices of one wide table
        # would have gradients that are put together again.
        query = tuple(part.index_select(0, query_B) for part in queries[:2])
        document = tuple(part.index_select(0, document_B) for part in documents[:2])
        logit_B = self.join(query, document, feature_BF)
        return logit_B, queries.log_UC, documents.log_UC

    def join(
        self,
        query: tuple[Tensor, ...],
        document: tuple[Tensor, ...],
        feature_BF: Tensor,
    ) -> Tensor:
        """Relevance logits (B,) from shares of the head and class weights of the text towers, one row each."""
        query_BH, query_BC = query
        document_BH, document_BC = document
        input_BF = self._crossed(feature_BF)
        if query_BC.shape[1]:
            input_BF = torch.cat([input_BF, class_match(query_BC, document_BC)], dim=1)
        interaction_BI = self.interaction_tower(input_BF)
        hidden_BH = self.head(query_BH + document_BH + self.interaction_to_head(interaction_BI))
        # bf16 has 8 bits: a logit in it would tie rows that differ.
        with torch.autocast(hidden_BH.device.type, enabled=False):
            logit_B: Tensor = self.logit(hidden_BH.float()).squeeze(1)
        return logit_B

    def _crossed(self, feature_BF: Tensor) -> Tensor:
        missing_BF = torch.isnan(feature_BF)
        value_BF = torch.nan_to_num(feature_BF, nan=0.0)
        input_BF = torch.cat([value_BF, missing_BF.to(value_BF.dtype)], dim=1)
        return input_BF if self.cross is None else self.cross(input_BF)


def class_match(query_BC: Tensor, document_BC: Tensor) -> Tensor:
    """How well the class that is wanted and the class that is offered go together, and its logarithm: (B, 2)."""
    match_B = (query_BC * document_BC).sum(dim=1, dtype=torch.float32)
    return torch.stack([match_B, (match_B.relu() + 1e-3).log() / 3 + 1], dim=1)


class PositionBias(nn.Module):
    """Log examination by position: the part of a click that the place on the page decides.

    PAL: a position-bias aware learning framework (Guo et al., RecSys 2019). Position 1 is the reference with weight 0, so a
    score means "as seen at the top". Index 0 stands for an unknown position. Weights start at 0.
    """

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(positions + 1))

    def start_at(self, slope: float) -> None:
        """Start at an examination of position ** -slope instead; the unknown position starts at the curve's middle."""
        with torch.no_grad():
            self.weight[1:] = -slope * torch.arange(1, self.weight.numel()).log()
            self.weight[0] = self.weight[1:].mean()

    def forward(self, position_B: Tensor) -> Tensor:
        """Weights (B,) of positions 0..K; greater ones count as K, and 1 always gives 0."""
        position_B = position_B.clamp(max=self.weight.numel() - 1)
        return torch.where(position_B == 1, 0.0, self.weight[position_B])


class ClickModel(nn.Module):
    """Relevance and position bias together: what training sees; scoring keeps `relevance` only."""

    def __init__(self, config: NetworkConfig, *, dim: int, features: int) -> None:
        super().__init__()
        self.relevance = TripleTower(config, dim=dim, features=features)
        self.bias = PositionBias(config.positions) if config.position != "none" else None

    def forward(
        self,
        query_QD: Tensor,
        document_JD: Tensor,
        query_B: Tensor,
        document_B: Tensor,
        feature_BF: Tensor,
        position_B: Tensor,
    ) -> ClickLogProbs:
        """Log probabilities of a click and of no click, and of the classes."""
        logit_B, *classes = self.relevance(query_QD, document_JD, query_B, document_B, feature_BF)
        bias_B = self.bias(position_B) if self.bias is not None else None
        return ClickLogProbs(*click_log_probabilities(logit_B, bias_B), *classes)


def click_log_probabilities(logit_B: Tensor, bias_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log probability of a click and of no click from relevance logits and position weights.

    P = exp(min(bias, 0)) sigmoid(logit), an examination probability times the relevance; sigmoid(logit) without weights.
    """
    if bias_B is None:
        return functional.logsigmoid(logit_B), functional.logsigmoid(-logit_B)
    # The value is capped at 0 but the gradient passes, or a weight that once rose above 0 could never come back.
    examination_B = bias_B - functional.relu(bias_B).detach()
    click_B = examination_B + functional.logsigmoid(logit_B)
    # log(1 - P) from log P: accurate up to P = 1 - 1e-7, where the gradient would explode anyway.
    skip_B = torch.log(-torch.expm1(click_B.clamp(max=-1e-7)))
    return click_B, skip_B


def examination(model: ClickModel) -> list[float]:
    """Examination probability of positions 1..K relative to the top; empty without position bias."""
    if model.bias is None:
        return []
    weight_K = model.bias.weight.detach().double().cpu()[1:].clone()
    weight_K[0] = 0.0
    return [float(value) for value in weight_K.clamp(max=0.0).exp()]
