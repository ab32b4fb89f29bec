"""What the tokens of DiscRec read."""

import pytest
import torch
from small_world import small_catalogue

from ray_jobs.data.batches import make_batch
from ray_jobs.recipes.generative.discrec import DiscRec, DiscRecSettings

SMALL = {"width": 16, "heads": 2, "head_width": 8, "inner": 32, "layers": 1, "encoder_layers": 1}


def discrec(**given):
    torch.manual_seed(0)
    return DiscRec(DiscRecSettings(**SMALL, **given), small_catalogue()).eval()


def moved(model, one, other):
    """Which input positions of the encoder differ between two histories of the same length."""
    with torch.no_grad():
        inputs = []
        for items in (one, other):
            batch = make_batch([items], [""])
            tokens, _ = model.input_tokens(batch)
            inputs.append(model.history_inputs(tokens, batch.lengths)[0])
    return (~torch.isclose(*inputs, atol=1e-6)).any(1).tolist()


# Items 7 and 9 share their first code; an item has two codes, and the end token follows.
@pytest.mark.parametrize(
    ("reads", "first_changes", "last_changes"),
    [
        ("item", [True, True, False, False, False], [False, False, True, True, True]),
        ("history", [True] * 5, [True] * 5),
        ("token", [False, True, False, False, False], [False, False, False, True, False]),
    ],
)
def test_a_token_reads_its_item_and_the_end_reads_the_last(reads, first_changes, last_changes):
    model = discrec(reads=reads)
    assert moved(model, [7, 20], [9, 20]) == first_changes
    assert moved(model, [20, 7], [20, 9]) == last_changes


def test_places_in_an_item_count_and_places_in_the_history_do_not():
    model = discrec()
    with torch.no_grad():
        batch = make_batch([[7, 7]], [""])
        tokens, _ = model.input_tokens(batch)
        inputs = model.history_inputs(tokens[:, :4], torch.tensor([5]))[0]
        same = model.read_history(model.tokens.table(tokens[0, [0, 0]]), torch.tensor([0, 1]), torch.eye(2) == 1)
    assert torch.allclose(inputs[:2], inputs[2:], atol=1e-6)
    assert not torch.allclose(same[0], same[1], atol=1e-3), "the same code at two places of an item"


def test_the_control_has_as_many_parameters():
    sizes = {sum(p.numel() for p in discrec(reads=reads).parameters()) for reads in ("item", "history", "token")}
    assert len(sizes) == 1


def test_a_target_token_reads_the_codes_before_it():
    model, codes = discrec(), torch.tensor([[1, 2], [3, 2]])
    with torch.no_grad():
        tokens = torch.cat([torch.zeros(2, 1, dtype=torch.int64), model.tokens.ids(codes)], dim=1)
        inputs = model.target_inputs(tokens)
        for known in range(3):
            assert torch.allclose(model.newest_input(codes[:, :known]), inputs[:, known], atol=1e-6)
    assert torch.allclose(inputs[0, 0], inputs[1, 0])
    assert not torch.allclose(inputs[0, 2], inputs[1, 2], atol=1e-3), "the same last code of two items"
