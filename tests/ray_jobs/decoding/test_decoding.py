import math

import pytest
import torch

from infra.errors import SettingError
from ray_jobs.decoding import trie as trie_module
from ray_jobs.decoding.beam_search import _top, constrained_beam_search
from ray_jobs.decoding.guided_search import guided_beam_search
from ray_jobs.decoding.trie import Trie


@pytest.fixture(params=["tables", "rows"])
def layout(request, monkeypatch):
    """Levels have tables, or rows only."""
    monkeypatch.setattr(trie_module, "TABLE_CELLS", 2**20 if request.param == "tables" else 0)


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


def rules(generator, batch, items, excluded, share):
    """Items to leave out, int64[B, E], and those allowed, bool[B, N], about `share` of all; None if that is None."""
    exclude = torch.randint(-1, items, (batch, excluded), generator=generator)
    return exclude, None if share is None else torch.rand(batch, items, generator=generator) < share


def left_out(exclude, allowed, row):
    """The items that may not come in a row."""
    forbidden = set() if allowed is None else set((~allowed[row]).nonzero()[:, 0].tolist())
    return (set(exclude[row].tolist()) - {-1}) | forbidden


CASES = [
    (seed, sizes, items) for seed, (sizes, items) in enumerate([((3, 4, 2, 3), n) for n in (1, 2, 7, 25, 60, 72)])
] + [(11, (5,), 4), (12, (2, 2, 2, 2, 2, 2), 40), (13, (30, 30), 300), (14, (1, 6, 1, 6), 20)]


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize(("seed", "sizes", "items"), CASES)
@pytest.mark.parametrize("share", [None, 0.3])
def test_with_a_beam_per_item_the_search_equals_scoring_everything(seed, sizes, items, share):
    generator = torch.Generator().manual_seed(seed)
    codes = random_codes(generator, sizes, items)
    model = RandomModel(generator, sizes, batch=3)
    exclude, allowed = rules(generator, 3, items, 5, share)
    k = min(10, items)
    trie = Trie.from_codes(codes, sizes)
    found, log_probs = constrained_beam_search(model, trie, 3, max(items, k), k, exclude, allowed)
    scores = model.item_scores(codes)
    for row in range(3):
        scores[row, sorted(left_out(exclude, allowed, row))] = -torch.inf
    best = scores.topk(k)
    expected = best.indices.masked_fill(best.values == -torch.inf, -1)
    assert torch.equal(found, expected)
    assert torch.allclose(log_probs, best.values, atol=1e-5)


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize(("seed", "sizes", "items"), CASES)
@pytest.mark.parametrize(("beams", "k"), [(1, 1), (3, 2), (10, 10)])
@pytest.mark.parametrize("share", [None, 0.3])
def test_few_beams_give_valid_distinct_items_in_the_order_of_a_plain_search(seed, sizes, items, beams, k, share):
    generator = torch.Generator().manual_seed(100 + seed)
    codes = random_codes(generator, sizes, items)
    model = RandomModel(generator, sizes, batch=4)
    exclude, allowed = rules(generator, 4, items, 7, share)
    found, log_probs = constrained_beam_search(model, Trie.from_codes(codes, sizes), 4, beams, k, exclude, allowed)
    scores = model.item_scores(codes)
    for row in range(4):
        excluded = left_out(exclude, allowed, row)
        real = [item for item in found[row].tolist() if item >= 0]
        assert real == plain_beam_search(model, codes, row, beams, excluded)[:k]
        assert len(real) == min(k, items - len(excluded)), "items are left, so k of them come out"
        assert not set(real) & excluded
        assert torch.allclose(log_probs[row, : len(real)], scores[row, real], atol=1e-5)
        assert (found[row, len(real) :] == -1).all()
        assert (log_probs[row, len(real) :] == -torch.inf).all()


@pytest.mark.usefixtures("layout")
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


def everything_scored(model, codes, row, k, excluded=(), cap=None):
    """The best items by (score, index), at most `cap` of each first code, over Python lists."""
    scores = model.item_scores(codes)[row].tolist()
    found, taken = [], {}
    for item in sorted(range(len(codes)), key=lambda item: (-scores[item], item)):
        first = int(codes[item, 0])
        if item not in excluded and (cap is None or taken.get(first, 0) < cap):
            taken[first] = taken.get(first, 0) + 1
            found.append(item)
    return found[:k]


def shared_codes(generator, sizes, items, tuples):
    """`items` rows of `tuples` distinct ones, some of them often."""
    codes = random_codes(generator, sizes, tuples)
    return codes[(torch.rand(items, generator=generator) ** 2 * tuples).long()]


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("cap", [None, 1, 3])
@pytest.mark.parametrize("share", [None, 0.3])
def test_leaves_of_several_items_give_all_of_them_that_may_come(seed, cap, share):
    generator = torch.Generator().manual_seed(seed)
    sizes, items = (3, 4, 2), 40
    codes = shared_codes(generator, sizes, items, 15)
    model = RandomModel(generator, sizes, batch=3)
    exclude, allowed = rules(generator, 3, items, 12, share)
    trie = Trie.from_codes(codes, sizes)
    for k in (1, 4, 40):
        found, log_probs = constrained_beam_search(model, trie, 3, 40, k, exclude, allowed, max_per_first_code=cap)
        for row in range(3):
            expected = everything_scored(model, codes, row, k, left_out(exclude, allowed, row), cap)
            assert found[row].tolist() == expected + [-1] * (k - len(expected))
            scores = model.item_scores(codes)[row, expected]
            assert torch.allclose(log_probs[row, : len(expected)], scores, atol=1e-5)
    everywhere = torch.arange(items).repeat(3, 1)
    assert (constrained_beam_search(model, trie, 3, 40, 5, everywhere)[0] == -1).all()


def test_items_of_equal_score_come_out_in_order():
    codes = torch.tensor([[1, 0], [0, 1], [0, 1], [1, 0], [0, 1], [0, 0]])
    tables = [torch.tensor([[-1.0, -2.0]]), torch.tensor([[-9.0, -1.0], [-2.0, -9.0]])]

    def step(prefixes, parents):
        table = tables[prefixes.shape[2]]
        return table[prefixes[..., 0] if prefixes.shape[2] else torch.zeros(2, 1, dtype=torch.int64)]

    trie = Trie.from_codes(codes, (2, 2))
    plain, scores = constrained_beam_search(step, trie, 2, 4, 4)
    assert plain.tolist() == [[1, 2, 4, 0]] * 2
    assert scores.tolist() == [[-2.0, -2.0, -2.0, -4.0]] * 2


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cap", [1, 2, 5])
def test_a_cap_holds_for_every_first_code_and_lets_as_many_items_out_as_it_allows(seed, cap):
    generator = torch.Generator().manual_seed(seed)
    sizes, items = (4, 5, 3), 50
    codes = random_codes(generator, sizes, items)
    model = RandomModel(generator, sizes, batch=2)
    model.tables[0][:, :, 1:] -= 20
    exclude = torch.randint(-1, items, (2, 9), generator=generator)
    trie = Trie.from_codes(codes, sizes)
    exact, _ = constrained_beam_search(model, trie, 2, items, 12, exclude, max_per_first_code=cap)
    few, _ = constrained_beam_search(model, trie, 2, 12, 12, exclude, max_per_first_code=cap)
    for row in range(2):
        expected = everything_scored(model, codes, row, 12, set(exclude[row].tolist()), cap)
        assert [item for item in exact[row].tolist() if item >= 0] == expected
        real = few[row][few[row] >= 0]
        assert len(real) == len(expected), "few beams may miss better items, but give as many"
        assert codes[real, :1].unique(dim=0, return_counts=True)[1].max() <= cap
    unlimited, _ = constrained_beam_search(model, trie, 2, items, 12, exclude, max_per_first_code=items)
    assert torch.equal(unlimited, constrained_beam_search(model, trie, 2, items, 12, exclude)[0])
    assert codes[unlimited[0][unlimited[0] >= 0], :1].unique(dim=0, return_counts=True)[1].max() > cap


def test_a_cap_out_of_range_is_refused():
    trie = Trie.from_codes(torch.tensor([[0], [1]]), (2,))
    with pytest.raises(SettingError, match="max_per_first_code is 0"):
        constrained_beam_search(lambda codes, parents: torch.zeros(1, 1, 2), trie, 1, 5, 5, max_per_first_code=0)


def test_the_largest_values_are_found_by_chunks_as_without():
    generator = torch.Generator().manual_seed(0)
    for width in (15, 64, 640, 6400):
        values = torch.randn(5, width, generator=generator)
        values[values < -0.5] = -torch.inf
        best, places = _top(values, 10)
        assert torch.equal(best, values.topk(10).values)
        assert torch.equal(best, values.gather(1, places))
        assert all(len(set(row)) == 10 for row in places.tolist())


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("sizes", [(3, 4, 2), (2**40, 2**40, 5), (2**62, 2**62)])
def test_the_trie_has_the_children_that_the_codes_have(sizes):
    generator = torch.Generator().manual_seed(0)
    pool = random_codes(generator, (3, 4, 2)[: len(sizes)], 10)
    codes = torch.stack([pool[:, level] * (size // 4 or 1) % size for level, size in enumerate(sizes)], dim=1)
    codes = codes.unique(dim=0)[torch.randperm(len(codes.unique(dim=0)), generator=generator)]
    trie = Trie.from_codes(codes, sizes)
    prefixes = {0: ()}
    for level in range(len(sizes)):
        below = {}
        for node, prefix in prefixes.items():
            start, end = trie.offsets[level][node : node + 2].tolist()
            expected = sorted({c[level] for c in codes.tolist() if tuple(c[:level]) == prefix})
            assert trie.symbols[level][start:end].tolist() == expected
            below |= {start + i: (*prefix, symbol) for i, symbol in enumerate(expected)}
            if (table := trie.children[level]) is not None:
                assert {code: child for code, child in enumerate(table[node].tolist()) if child >= 0} == {
                    symbol: start + place for place, symbol in enumerate(expected)
                }
        assert trie.parents(level, torch.tensor(sorted(below))).tolist() == [
            next(node for node, prefix in prefixes.items() if prefix == below[child][:-1]) for child in sorted(below)
        ]
        prefixes = below
    leaves = [prefixes[i] for i in range(len(codes))]
    assert [tuple(codes[item].tolist()) for item in trie.leaf_items.tolist()] == leaves
    assert trie.item_slots[trie.leaf_items].tolist() == list(range(len(codes)))


def test_two_items_with_the_same_codes_share_a_leaf():
    codes = torch.tensor([[0, 1], [1, 0], [0, 1]])
    trie = Trie.from_codes(codes, (2, 2))
    assert (trie.leaf_items.tolist(), trie.leaf_starts.tolist()) == ([0, 2, 1], [0, 2, 3])
    assert Trie.from_codes(codes[:2], (2, 2)).leaf_starts is None


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("share", [None, 0.3])
def test_a_guided_search_finds_what_scoring_every_item_finds(layout, shared, share):
    generator = torch.Generator().manual_seed(3)
    for trial in range(8):
        sizes, batch, k = (6, 5, 8), 5, 10
        codes = random_codes(generator, sizes, 90)
        if shared:
            codes = codes[torch.randint(90, (90,), generator=generator)]
        trie = Trie.from_codes(codes, sizes)
        model = RandomModel(generator, sizes, batch)
        bonus = torch.randn(batch, 90, generator=generator) * (1 + trial)
        bonus[0] = 0
        exclude, allowed = rules(generator, batch, 90, 12, share)

        def fresh(model=model, batch=batch):
            model.previous = torch.empty(batch, 1, 0, dtype=torch.int64)
            return model

        plain = constrained_beam_search(fresh(), trie, batch, k, k, exclude, allowed)
        items, scores = guided_beam_search(fresh, trie, bonus, k, k, exclude, allowed)
        assert torch.equal(items[0], plain[0][0]), "no word, no change"
        assert torch.equal(scores[0], plain[1][0])
        wanted = model.item_scores(codes) + bonus
        for row in range(1, batch):
            wanted[row, sorted(left_out(exclude, allowed, row))] = -torch.inf
            if not shared:
                assert torch.allclose(scores[row], wanted[row].topk(k).values, atol=1e-4)
            assert torch.allclose(scores[row], wanted[row][items[row]], atol=1e-4)
