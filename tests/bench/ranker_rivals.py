"""The same training as one writes it first: one row of both embeddings and the features for each impression, every tower on
every row.

Legend: B rows of a batch, D embedding width, F features, C occupation classes.
"""

import copy
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset
from tritower.ranker.config import RankerConfig
from tritower.ranker.network import ClickModel
from tritower.ranker.rows import Rows


class RowNetwork(nn.Module):
    """The function that a ClickModel with default towers computes, with a copy of its weights, over rows.

    The texts come scaled (`text_scale`) already.
    """

    def __init__(self, model: ClickModel, config: RankerConfig, dim: int) -> None:
        super().__init__()
        ours, self.dim, self.weight = model.relevance, dim, config.training.occupation_weight
        assert model.bias is not None
        self.query, self.document = copied(ours.query_tower.tower[0]), copied(ours.document_tower.tower[0])
        self.cross = copy.deepcopy(ours.cross) if ours.cross is not None else nn.Identity()
        self.interaction = nn.Sequential(
            *(copied(part) if isinstance(part, nn.Linear) else part for part in ours.interaction_tower)
        )
        parts = [ours.query_tower.to_head, ours.document_tower.to_head, ours.interaction_to_head]
        first = nn.Linear(sum(part.in_features for part in parts), config.network.head[0])
        with torch.no_grad():
            first.weight.copy_(torch.cat([part.weight for part in parts], dim=1))
            first.bias.copy_(ours.interaction_to_head.bias)
        self.head = nn.Sequential(first, nn.ReLU(), copied(ours.logit))
        self.position = nn.Parameter(model.bias.weight.detach().clone())
        self.query_class = self.document_class = None
        if ours.query_tower.to_class is not None:
            self.query_class, self.document_class = copied(ours.query_tower.to_class), copied(ours.document_tower.to_class)
            self.related = nn.Parameter(ours.query_tower.relatedness_CC.detach().clone())

    def forward(self, row_BX: Tensor, clicked_B: Tensor, position_B: Tensor, class_B: Tensor) -> Tensor:
        """The loss: of the click as shown and, with classes, of the second task."""
        query_BD, document_BD, feature_BF = row_BX.tensor_split([self.dim, 2 * self.dim], dim=1)
        query_BE, document_BE = self.query(query_BD).relu(), self.document(document_BD).relu()
        missing_BF = torch.isnan(feature_BF)
        inputs = [self.cross(torch.cat([torch.nan_to_num(feature_BF), missing_BF.float()], dim=1))]
        if self.query_class is not None:
            query_BC, document_BC = self.query_class(query_BE), self.document_class(document_BE)
            match_B = ((query_BC.softmax(1) @ self.related) * document_BC.softmax(1)).sum(1)
            inputs.append(torch.stack([match_B, (match_B.relu() + 1e-3).log() / 3 + 1], dim=1))
        joined = [query_BE, document_BE, self.interaction(torch.cat(inputs, dim=1))]
        logit_B = self.head(torch.cat(joined, dim=1)).squeeze(1).float()
        bias_B = torch.where(position_B == 1, 0.0, self.position[position_B])
        click_B = bias_B - bias_B.relu().detach() + functional.logsigmoid(logit_B)
        skip_B = torch.log(-torch.expm1(click_B.clamp(max=-1e-7)))
        loss = -(clicked_B * click_B + (1 - clicked_B) * skip_B).mean()
        if self.query_class is not None:
            wanted = (clicked_B > 0) & (class_B >= 0)
            told = functional.cross_entropy(query_BC[wanted], class_B[wanted])
            loss = loss + self.weight * (told + functional.cross_entropy(document_BC, class_B, ignore_index=-1))
        return loss


def copied(layer: nn.Module) -> nn.Linear:
    """A linear layer with the same weights."""
    assert isinstance(layer, nn.Linear)
    fresh = nn.Linear(layer.in_features, layer.out_features)
    fresh.load_state_dict(layer.state_dict())
    return fresh


class Learner:
    """The usual loop, with the same optimiser, clipping and moving average as torch offers them."""

    def __init__(self, network: RowNetwork, config: RankerConfig, *, bf16: bool = False) -> None:
        self.network, self.config = network, config
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=config.optimiser.learning_rate, weight_decay=config.optimiser.weight_decay
        )
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.optimiser.ema_decay))
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)

    def epoch(self, loader: Iterable[dict[str, Tensor] | list[Tensor]]) -> None:
        """Learn from each batch."""
        for batch in loader:
            if isinstance(batch, dict):
                row_BX = torch.cat([batch["query"], batch["document"], batch["feature"]], dim=1)
                others = batch["clicked"], batch["position"], batch["class"]
            else:
                row_BX, *others = batch
            with self.autocast:
                loss = self.network(row_BX, *others)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimiser.clip_norm)
            self.optimiser.step()
            self.optimiser.zero_grad()
            self.average.update_parameters(self.network)


class OfNumpy(Dataset):
    """One row of a table that holds both embeddings and the features."""

    def __init__(self, data: Rows, scaled_TD: np.ndarray, size: int) -> None:
        parts = [scaled_TD[data.query[:size]], scaled_TD[data.document[:size]], data.feature[:size]]
        self.table = np.concatenate(parts, axis=1).astype(np.float32)
        self.clicked, self.position = data.clicked[:size].astype(np.float32), data.position[:size].astype(np.int64)
        self.occupation = data.occupation[:size].astype(np.int64)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.float32, np.int64, np.int64]:
        return self.table[row], self.clicked[row], self.position[row], self.occupation[row]


class OfArrays(Dataset):
    """One dict of tensors per row, from arrays."""

    def __init__(self, data: Rows, scaled_TD: np.ndarray, size: int) -> None:
        self.size, self.data, self.scaled_TD = size, data.take(np.arange(size)), scaled_TD.astype(np.float32)
        self.feature = self.data.feature.astype(np.float32)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        data = self.data
        return {
            "query": torch.tensor(self.scaled_TD[data.query[row]]),
            "document": torch.tensor(self.scaled_TD[data.document[row]]),
            "feature": torch.tensor(self.feature[row]),
            "clicked": torch.tensor(data.clicked[row], dtype=torch.float32),
            "position": torch.tensor(data.position[row], dtype=torch.int64),
            "class": torch.tensor(data.occupation[row], dtype=torch.int64),
        }


class OfFrame(Dataset):
    """One dict of tensors per row, from a data frame."""

    def __init__(self, data: Rows, scaled_TD: np.ndarray, size: int) -> None:
        self.scaled_TD = scaled_TD.astype(np.float32)
        self.names = [f"feature_{number}" for number in range(data.feature.shape[1])]
        self.frame = pd.DataFrame(data.feature[:size].astype(np.float32), columns=self.names)
        for name in ("query", "document", "position", "occupation"):
            self.frame[name] = getattr(data, name)[:size]
        self.frame["clicked"] = data.clicked[:size].astype(np.float32)

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        values = self.frame.iloc[row]
        return {
            "query": torch.tensor(self.scaled_TD[int(values["query"])]),
            "document": torch.tensor(self.scaled_TD[int(values["document"])]),
            "feature": torch.tensor(values[self.names].to_numpy(dtype=np.float32)),
            "clicked": torch.tensor(values["clicked"], dtype=torch.float32),
            "position": torch.tensor(int(values["position"])),
            "class": torch.tensor(int(values["occupation"])),
        }
