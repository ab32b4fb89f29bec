import math
from collections import Counter

import pytest
import torch

from ray_jobs.data.views import cropped, masked, shuffled, substituted, two_of

DRAWS = 400
LENGTHS = (7, 5, 1, 2)


def _drawn(view, share):
    """(history, view without padding on the right, its length) of each row of many draws."""
    torch.manual_seed(0)
    rows = [[100 * row + place if place < length else -1 for place in range(7)] for row, length in enumerate(LENGTHS)]
    history, lengths = torch.tensor(rows * DRAWS), torch.tensor(LENGTHS * DRAWS)
    made, left = view(history, lengths, share)
    assert made.shape == history.shape
    for row, after, length, found in zip(rows * DRAWS, made.tolist(), lengths.tolist(), left.tolist(), strict=True):
        assert set(after[found:]) <= {-1}, "padding is on the right"
        yield row[:length], after[:found]


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_a_crop_is_a_stretch_of_the_share_and_begins_anywhere(share):
    begins = Counter()
    for history, view in _drawn(cropped, share):
        kept = max(1, math.floor(share * len(history)))
        at = history.index(view[0])
        assert view == history[at : at + kept]
        begins[len(history), at] += 1
    for length in LENGTHS:
        possible = length - max(1, math.floor(share * length)) + 1
        assert all(begins[length, at] > 0.6 * DRAWS / possible for at in range(possible))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
def test_masking_empties_the_share_wherever_it_falls_and_moves_nothing(share):
    empty = Counter()
    for history, view in _drawn(masked, share):
        at = [place for place, item in enumerate(view) if item < 0]
        assert len(at) == math.floor(share * len(history))
        assert all(item == history[place] for place, item in enumerate(view) if item >= 0)
        assert len(view) == len(history)
        empty.update((len(history), place) for place in at)
    for length in LENGTHS:
        expected = DRAWS * math.floor(share * length) / length
        assert all(0.7 * expected <= empty[length, place] <= 1.3 * expected for place in range(length))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
def test_shuffling_reorders_one_stretch_of_the_share(share):
    moved = Counter()
    for history, view in _drawn(shuffled, share):
        assert sorted(view) == history
        at = [place for place, item in enumerate(view) if item != history[place]]
        assert not at or at[-1] - at[0] < math.floor(share * len(history))
        moved.update((len(history), place) for place in at)
    reordered = 7 if share else 0
    assert sum(moved[7, place] > 0 for place in range(7)) == reordered


def test_a_row_has_two_different_views_and_any_two():
    torch.manual_seed(0)
    views = tuple((torch.full((600, 3), view), torch.full((600,), view)) for view in range(3))
    items, lengths = two_of(views)
    assert (items.shape, lengths.shape) == ((600, 2, 3), (600, 2))
    assert torch.equal(items, lengths[..., None].expand(-1, -1, 3))
    pairs = Counter(map(tuple, lengths.tolist()))
    assert set(pairs) == {(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)}
    assert min(pairs.values()) > 60


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_items_are_exchanged_for_any_of_those_that_may_stand_for_them(share):
    torch.manual_seed(0)
    others = torch.tensor([[5, 6, 7], [6, -1, -1], [-1, -1, -1]])
    history, lengths = torch.tensor([[0, 1, 2, 0, -1]] * 3_000), torch.full((3_000,), 4)
    view, same = substituted(history, lengths, others, share)
    assert same is lengths
    assert (view[:, 2:3] == 2).all(), "an item without any stays"
    assert (view[:, 4] == -1).all()
    assert set(view[:, 1].tolist()) <= {1, 6}
    moved = view != history
    for place in (0, 1, 3):
        assert float(moved[:, place].float().mean()) == pytest.approx(share, abs=0.03)
    assert not share or float((moved[:, 0] & moved[:, 3]).float().mean()) == pytest.approx(share**2, abs=0.03)
    counts = Counter(view[:, 0][moved[:, 0]].tolist())
    assert set(counts) <= {5, 6, 7}
    assert all(count == pytest.approx(1_000 * share, rel=0.25) for count in counts.values())
