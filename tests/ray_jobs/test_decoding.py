import math

import pytest
import torch

from infra.errors import SettingError
from ray_jobs.decoding.beam_search import constrained_beam_search
from ray_jobs.decoding.trie import Trie


def random_codes(generator, sizes, items):
    """`items` distinct tuples, int64[items, H]."""
    everything = torch.cartesian_prod(*(torch.arange(size) for size in sizes)).view(-1, len(sizes))
    return everything[torch.randperm(len(everything), generator=generator)[:items]]


class RandomModel:
    """Log-probabilities per row and prefix, drawn once; checks what the search tells it about its beams."""

    def __init__(self, generator, sizes, batch):
        self.sizes = sizes
        self.tables = [
            torch.randn(batch, math.prod(sizes[:level]), size, generator=generator).log_softmax(-1)
            for level, size in enumerate(sizes)
        ]
        self.previous = torch.empty(batch, 1, 0, dtype=torch.int64)

    def number(self, prefixes):
        number = torch.zeros(prefixes.shape[:-1], dtype=torch.int64)
        for level in range(prefixes.shape[-1]):
            number = number * self.sizes[level] + prefixes[..., level]
        return number

    def __call__(self, codes, parents):
        level = codes.shape[2]
        if level:
            reordered = self.previous.gather(1, parents.unsqueeze(2).expand(-1, -1, level - 1))
            assert torch.equal(reordered, codes[:, :, :-1]), "parents do not say which prefix was extended"
        self.previous = codes
        numbers = self.number(codes)
        return self.tables[level].gather(1, numbers.unsqueeze(2).expand(-1, -1, self.sizes[level]))

    def item_scores(self, codes):
        """Log-probability of every item, float[B, N]."""
        total = 0
        for level, table in enumerate(self.tables):
            total = total + table[:, self.number(codes[:, :level]), codes[:, level]]
        return total


def plain_beam_search(model, codes, row, beams, excluded):
    """The same search over Python lists; for small trees."""
    left = [tuple(c) for i, c in enumerate(codes.tolist()) if i not in excluded]
    prefixes = {(): 0.0}
    for level in range(codes.shape[1]):
        extended = {}
        for prefix, score in prefixes.items():
            for code in {c[level] for c in left if c[:level] == prefix}:
                extended[(*prefix, code)] = (
                    score + model.tables[level][row, model.number(torch.tensor(prefix)), code].item()
                )
        prefixes = dict(sorted(extended.items(), key=lambda pair: -pair[1])[:beams])
    place = {tuple(c): i for i, c in enumerate(codes.tolist())}
    return [place[prefix] for prefix in prefixes]


CASES = [
    (seed, sizes, items) for seed, (sizes, items) in enumerate([((3, 4, 2, 3), n) for n in (1, 2, 7, 25, 60, 72)])
] + [(11, (5,), 4), (12, (2, 2, 2, 2, 2, 2), 40), (13, (30, 30), 300), (14, (1, 6, 1, 6), 20)]


@pytest.mark.parametrize(("seed", "sizes", "items"), CASES)
def test_with_a_beam_per_item_the_search_equals_scoring_everything(seed, sizes, items):
    generator = torch.Generator().manual_seed(seed)
    codes = random_codes(generator, sizes, items)
    model = RandomModel(generator, sizes, batch=3)
    exclude = torch.randint(-1, items, (3, 5), generator=generator)
    k = min(10, items)
    found, log_probs = constrained_beam_search(model, Trie.from_codes(codes, sizes), 3, max(items, k), k, exclude)
    scores = model.item_scores(codes)
    for row in range(3):
        scores[row, exclude[row][exclude[row] >= 0]] = -torch.inf
    best = scores.topk(k)
    expected = best.indices.masked_fill(best.values == -torch.inf, -1)
    assert torch.equal(found, expected)
    assert torch.allclose(log_probs, best.values, atol=1e-5)


@pytest.mark.parametrize(("seed", "sizes", "items"), CASES)
@pytest.mark.parametrize(("beams", "k"), [(1, 1), (3, 2), (10, 10)])
def test_few_beams_give_valid_distinct_items_in_the_order_of_a_plain_search(seed, sizes, items, beams, k):
    generator = torch.Generator().manual_seed(100 + seed)
    codes = random_codes(generator, sizes, items)
    model = RandomModel(generator, sizes, batch=4)
    exclude = torch.randint(-1, items, (4, 7), generator=generator)
    found, log_probs = constrained_beam_search(model, Trie.from_codes(codes, sizes), 4, beams, k, exclude)
    scores = model.item_scores(codes)
    for row in range(4):
        excluded = set(exclude[row].tolist()) - {-1}
        real = [item for item in found[row].tolist() if item >= 0]
        assert real == plain_beam_search(model, codes, row, beams, excluded)[:k]
        assert len(real) == min(k, items - len(excluded)), "items are left, so k of them come out"
        assert not set(real) & excluded
        assert torch.allclose(log_probs[row, : len(real)], scores[row, real], atol=1e-5)
        assert (found[row, len(real) :] == -1).all()
        assert (log_probs[row, len(real) :] == -torch.inf).all()


def test_excluded_items_take_no_beam_even_when_the_model_loves_their_branch():
    sizes = (2, 8)
    codes = torch.cartesian_prod(torch.arange(2), torch.arange(8))

    def step(prefixes, parents):
        log_probs = torch.full((1, prefixes.shape[1], sizes[prefixes.shape[2]]), -50.0 - 10 * prefixes.shape[2])
        log_probs[..., 0] = 0.0
        return log_probs

    trie = Trie.from_codes(codes, sizes)
    found, log_probs = constrained_beam_search(step, trie, 1, 3, 3, torch.arange(7).unsqueeze(0))
    assert found[0, :2].tolist() == [8, 7], "branch 0 has one item left"
    assert found[0, 2] > 8
    assert log_probs.tolist() == [[-50.0, -60.0, -110.0]]
    found, _ = constrained_beam_search(step, trie, 1, 3, 3, torch.arange(8).unsqueeze(0))
    assert found[0, 0] == 8
    assert found.min() >= 8


def test_an_item_that_the_model_deems_impossible_still_beats_no_item():
    def step(prefixes, parents):
        return torch.full((2, prefixes.shape[1], 3), -torch.inf)

    codes = torch.tensor([[0, 1], [2, 2], [1, 0]])
    found, log_probs = constrained_beam_search(step, Trie.from_codes(codes, (3, 3)), 2, 5, 5)
    assert found.tolist() == [[0, 1, 2, -1, -1]] * 2, "equal scores in index order"
    assert (log_probs[:, :3] > -torch.inf).all()
    assert (log_probs[:, 3:] == -torch.inf).all()


def test_fewer_beams_than_results_is_refused():
    trie = Trie.from_codes(torch.tensor([[0], [1]]), (2,))
    with pytest.raises(SettingError, match="set beams to at least 10"):
        constrained_beam_search(lambda codes, parents: torch.zeros(1, 1, 2), trie, 1, 5, 10)


@pytest.mark.parametrize("sizes", [(3, 4, 2), (2**40, 2**40, 5), (2**62, 2**62)])
def test_the_trie_has_the_children_that_the_codes_have(sizes):
    generator = torch.Generator().manual_seed(0)
    pool = random_codes(generator, (3, 4, 2)[: len(sizes)], 10)
    codes = torch.stack([pool[:, level] * (size // 4 or 1) % size for level, size in enumerate(sizes)], dim=1)
    codes = codes.unique(dim=0)[torch.randperm(len(codes.unique(dim=0)), generator=generator)]
    trie = Trie.from_codes(codes, sizes)
    prefixes = {0: ()}
    for level in range(len(sizes)):
        nodes = torch.tensor(sorted(prefixes))
        children, symbols, valid = trie.children(level, nodes)
        below = {}
        for row, node in enumerate(nodes.tolist()):
            expected = sorted({c[level] for c in codes.tolist() if tuple(c[:level]) == prefixes[node]})
            assert symbols[row][valid[row]].tolist() == expected
            for child, symbol in zip(children[row][valid[row]].tolist(), expected, strict=True):
                below[child] = (*prefixes[node], symbol)
        prefixes = below
    assert [tuple(codes[item].tolist()) for item in trie.leaf_items.tolist()] == [
        prefixes[i] for i in range(len(codes))
    ]
    assert trie.item_leaves[trie.leaf_items].tolist() == list(range(len(codes)))
    _, _, valid = trie.children(0, torch.tensor([-1]))
    assert not valid.any()


def test_two_items_with_the_same_codes_make_no_trie():
    with pytest.raises(AssertionError, match="share a code tuple"):
        Trie.from_codes(torch.tensor([[0, 1], [0, 1]]), (2, 2))
