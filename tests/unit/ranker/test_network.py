"""Each part of the network against values computed by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tritower.ranker.config import NetworkConfig
from tritower.ranker.network import (
    ClickModel,
    PositionBias,
    TextTower,
    Tower,
    TripleTower,
    class_match,
    click_log_probabilities,
    examination,
)

TINY = NetworkConfig(
    query_tower=(2,),
    document_tower=(2,),
    interaction_tower=(1,),
    head=(2,),
    text_scale=0.5,
    descriptions=False,
    occupation_classes=0,
)


def fill(layer: torch.nn.Linear, weight: list[list[float]], bias: list[float]) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))


def tiny() -> TripleTower:
    tower = TripleTower(TINY, dim=2, features=2)
    fill(tower.query_tower.tower[0], [[1.0, 0.0], [0.0, 2.0]], [0.5, 0.0])
    fill(tower.document_tower.tower[0], [[1.0, 1.0], [-1.0, 0.0]], [0.0, 3.0])
    fill(tower.interaction_tower[0], [[1.0, 2.0, 10.0, 100.0]], [0.0])
    with torch.no_grad():  # the head's first layer, part by part
        tower.query_tower.to_head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tower.document_tower.to_head.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    fill(tower.interaction_to_head, [[1.0], [0.0]], [0.0, -100.0])
    fill(tower.logit, [[0.5, 7.0]], [-1.0])
    return tower


def test_tower_is_relu_of_an_affine_map():
    tower = Tower(2, (1,))
    fill(tower[0], [[2.0, -1.0]], [0.5])
    assert tower(torch.tensor([[1.0, 1.0], [0.0, 4.0]])).tolist() == [[1.5], [0.0]]


def test_triple_tower_by_hand():
    query_QD = torch.tensor([[2.0, 4.0]])  # halved -> [1.5, 4]
    document_JD = torch.tensor([[0.0, 0.0], [4.0, 2.0]])  # halved -> [0, 3], [3, 1]
    feature_BF = torch.tensor([[3.0, 1.0], [float("nan"), 1.0]])  # -> 3 + 2 = 5; 0 + 2 + 10 (first one missing) = 12
    logits, *classes = tiny()(query_QD, document_JD, torch.tensor([0, 0]), torch.tensor([1, 0]), feature_BF)
    # Row 0: 1.5 + document[1] 1 + interaction 5 = 7.5; 0.5 * 7.5 - 1
    # Row 1: 1.5 + 3 + 12 = 16.5; the second hidden unit stays below 0 in both
    assert logits.tolist() == [2.75, 7.25]
    assert classes == [None, None]


def test_class_match_by_hand():
    """Wanted classes (3/4, 1/4), offered (1/4, 3/4) and (1, 0) nearly; class 1 is half as good as class 0 for who wants 0."""
    tower = TextTower(replace(TINY, head=(1,), occupation_classes=2), 1, (1,), related=True)
    fill(tower.tower[0], [[1.0]], [0.0])
    fill(tower.to_class, [[math.log(3.0)], [0.0]], [0.0, 0.0])
    with torch.no_grad():
        tower.relatedness_CC.copy_(torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    told = tower(torch.tensor([[2.0]]))
    torch.testing.assert_close(told.log_UC, torch.tensor([[math.log(0.75), math.log(0.25)]]))
    torch.testing.assert_close(told.weight_UC, torch.tensor([[0.75, 0.75 * 0.5 + 0.25]]))
    match = class_match(told.weight_UC.expand(2, 2), torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    expected = [0.75 * 0.25 + 0.625 * 0.75, 0.75]
    torch.testing.assert_close(match[:, 0], torch.tensor(expected))
    torch.testing.assert_close(match[:, 1], torch.tensor([math.log(value + 1e-3) / 3 + 1 for value in expected]))


def test_one_missing_value_differs_from_zero():
    tower, one = tiny(), torch.zeros(1, dtype=torch.long)
    args = torch.ones(1, 2), torch.ones(1, 2), one, one
    missing, zero = (tower(*args, torch.tensor([[value, 0.0]]))[0] for value in (float("nan"), 0.0))
    assert missing != zero


def test_distinct_texts_give_what_repeated_texts_give():
    torch.manual_seed(0)
    tower = TripleTower(TINY, dim=3, features=2)
    query_QD, document_JD, feature_BF = torch.randn(2, 3), torch.randn(3, 3), torch.randn(4, 2)
    query_B, document_B = torch.tensor([0, 1, 1, 0]), torch.tensor([2, 0, 1, 1])
    rows = torch.arange(4)
    torch.testing.assert_close(
        tower(query_QD, document_JD, query_B, document_B, feature_BF)[0],
        tower(query_QD[query_B], document_JD[document_B], rows, rows, feature_BF)[0],
    )


def test_positions_beyond_the_last_share_its_weight_and_the_top_has_none():
    bias = PositionBias(3)
    with torch.no_grad():
        bias.weight.copy_(torch.tensor([-0.5, 9.0, -1.0, -2.0]))
    assert bias(torch.tensor([0, 1, 2, 3, 4, 900])).tolist() == [-0.5, 0.0, -1.0, -2.0, -2.0, -2.0]


@given(st.floats(-12, 12), st.floats(-6, 0))
def test_product_is_examination_times_relevance(logit: float, bias: float):
    click, skip = click_log_probabilities(torch.tensor([logit]), torch.tensor([bias]))
    expected = math.exp(bias) / (1 + math.exp(-logit))
    assert float(click.exp()) == pytest.approx(expected, rel=1e-4)
    assert float(skip.exp()) == pytest.approx(1 - expected, rel=2e-3, abs=1e-6)


def test_gradient_at_zero_weight_is_that_of_the_product():
    """At examination 1 and relevance s, d log P / d bias = 1 and d log(1 - P) / d bias = -s / (1 - s)."""
    logit, bias = torch.tensor([0.4]), torch.zeros(1, requires_grad=True)
    click, skip = click_log_probabilities(logit, bias)
    (of_click,) = torch.autograd.grad(click, bias, retain_graph=True)
    (of_skip,) = torch.autograd.grad(skip, bias)
    assert float(of_click) == pytest.approx(1.0)
    assert float(of_skip) == pytest.approx(-math.exp(0.4), rel=1e-4)


def test_a_weight_above_zero_can_come_back():
    bias = torch.tensor([0.7], requires_grad=True)
    click, skip = click_log_probabilities(torch.zeros(1), bias)
    assert float(click.detach().exp()) == pytest.approx(0.5)
    skip.backward()
    assert float(bias.grad) < 0


def test_examination_is_reported_relative_to_the_top():
    model = ClickModel(NetworkConfig(positions=3), dim=2, features=1)
    with torch.no_grad():
        model.bias.weight.copy_(torch.tensor([0.0, 5.0, math.log(0.5), 0.3]))
    np.testing.assert_allclose(examination(model), [1.0, 0.5, 1.0], rtol=1e-6)
    assert examination(ClickModel(NetworkConfig(position="none"), dim=2, features=1)) == []


def test_weights_start_on_the_curve():
    model = ClickModel(NetworkConfig(positions=4), dim=2, features=1)
    model.bias.start_at(0.5)
    np.testing.assert_allclose(examination(model), [1, 2**-0.5, 3**-0.5, 0.5], rtol=1e-6)
