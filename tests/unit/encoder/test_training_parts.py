from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.losses import TripletDistanceMetric, TripletLoss
from tritower.encoder import backends, finetuning, models
from tritower.encoder.batching import Collator
from tritower.encoder.checkpoint import flatten, random_states, restore_random_states, unflatten
from tritower.encoder.losses import ClickLoss
from tritower.encoder.small_vocabulary import SmallVocabulary

TEXTS = ["nurse wanted", "night nurse, acme", "cook, globex", "senior welder, acme", "cook wanted"]
ROWS = [{"anchor": 0, "positive": 1, "negatives": [2, 3]}, {"anchor": 4, "positive": 2, "negatives": [1, 1]}]


def test_loss_over_distinct_texts_equals_sentence_transformers_over_all(tiny_model: Path) -> None:
    model = models.load(tiny_model)
    tokens = dict(enumerate(backends.tokenise(model, TEXTS)[0]))
    batch = Collator(tokens, pad=0)(ROWS)
    parts = [{key: batch[f"{name}_{key}"] for key in ("input_ids", "attention_mask")} for name in ("anchor", "document")]
    ours = ClickLoss(model, kind="triplet", margin=0.5, scale=20.0)(parts, batch["label"])
    triplets = [(row["anchor"], row["positive"], negative) for row in ROWS for negative in row["negatives"]]
    columns = [model.preprocess([TEXTS[triplet[side]] for triplet in triplets]) for side in range(3)]
    theirs = TripletLoss(model, TripletDistanceMetric.COSINE, 0.5)(columns, None)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)


def test_the_small_vocabulary_changes_no_weight(tiny_model: Path) -> None:
    trained = []
    for small in (False, True):
        model = models.load(tiny_model)
        tokens, _ = backends.tokenise(model, TEXTS)
        cut = SmallVocabulary(model, tokens, pad=0) if small else None
        if cut:
            assert len(cut.kept) < len(model.tokenizer)
            tokens = [cut.translate(row) for row in tokens]
        batch = Collator(dict(enumerate(tokens)), pad=cut.pad if cut else 0)(ROWS)
        parts = [{key: batch[f"{name}_{key}"] for key in ("input_ids", "attention_mask")} for name in ("anchor", "document")]
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
        for _ in range(5):
            ClickLoss(model, kind="triplet", margin=0.5, scale=20.0)(parts, batch["label"]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if cut:
            cut.restore()
        trained.append(model.state_dict())
    full, small_one = trained
    assert full.keys() == small_one.keys()
    assert all(torch.allclose(full[name], small_one[name], atol=1e-6) for name in full)


def test_optimizer_and_random_states_survive_being_plain() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    parameter.grad = torch.ones(3)
    optimizer.step()
    state = optimizer.state_dict()
    again = unflatten(*flatten(state))
    assert again["param_groups"] == state["param_groups"]
    assert all(torch.equal(again["state"][0][name], value) for name, value in state["state"][0].items())

    tensors, plain = random_states()
    first = (torch.rand(2).tolist(), np.random.rand(2).tolist())  # noqa: NPY002 - the state libraries draw from
    restore_random_states(tensors, plain)
    assert (torch.rand(2).tolist(), np.random.rand(2).tolist()) == first  # noqa: NPY002


def test_an_occupation_s_code_is_called_by_its_most_frequent_title() -> None:
    occupations = ["29-1141.00", "29-1141.00", "29-1141.00", "Plumbers", None, "53-3032"]
    titles = ["Nurse", "Registered Nurse", "Registered Nurse", "Pipe fitter", "Cook", "Driver"]
    called = finetuning._names(occupations, titles, {"29-1141.00", "Plumbers", None})
    assert called == {"29-1141.00": "Registered Nurse", "Plumbers": "Plumbers"}
