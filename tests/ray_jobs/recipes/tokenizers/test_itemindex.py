"""Id schemes on planted communities: users stay in theirs, save for one item in ten."""

import dataclasses

import numpy as np
import pytest

from infra.errors import SettingError
from infra.settings import load_settings
from ray_jobs.recipes import recipe_class
from ray_jobs.recipes.tokenizers.itemindex import FILLER, ItemIndex, ItemIndexSettings, path_codes
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.cooccurrence import Cooccurrence, bounded_kmeans, place
from schemas.errors import DataError

COMMUNITIES = 6
ITEMS = 120
SCHEMES = {
    "random": {},
    "sequential": {},
    "collaborative": {"clusters": 6, "leaf": 12},
    "semantic": {},
    "hybrid": {"path": "semantic"},
    "hybrid collaborative": {"path": "collaborative", "clusters": 6, "leaf": 12},
    "constrained": {"branches": 6, "width": 6},
}


def community(row):
    return row % COMMUNITIES


def planted_sequences(seed, users=200, length=8):
    random = np.random.default_rng(seed)
    sequences = []
    for user in range(users):
        home = np.flatnonzero(np.arange(ITEMS) % COMMUNITIES == user % COMMUNITIES)
        items = random.choice(home, length, replace=False)
        strays = random.random(length) < 0.1
        items[strays] = random.integers(0, ITEMS, strays.sum())
        sequences.append(items)
    return tuple(sequences)


def categories():
    paths = [(f"c{community(row)}", f"d{row % 12}") for row in range(ITEMS)]
    paths[3], paths[5] = (), ("c5",)
    return tuple(paths)


def fit(name, sequences, items=ITEMS, paths=None, first=0, **changes):
    """Codes of the items from row `first` on, named by their row among all."""
    settings = ItemIndexSettings(**{"scheme": name.split()[0]} | SCHEMES[name] | changes)
    context = FitContext(
        training=np.isin(np.arange(first, items), np.concatenate(sequences)),
        version="v",
        ray=load_settings().ray,
        run_name="r",
        home="",
        stage="semantic_ids",
        sequences=tuple(rows - first for rows in sequences),
        categories=(paths or categories())[first:items],
    )
    names = [f"i{row:03d}" for row in range(first, items)]
    return ItemIndex(settings).fit(np.zeros((len(names), 1), np.float32), names, context)


def codes_of(*given, **changes):
    return fit(*given, **changes).codebook.codes


def same_first_code(codes):
    """Share of pairs of items of one community with the same first code."""
    groups = np.arange(ITEMS) % COMMUNITIES
    pairs = (groups[:, None] == groups[None, :]) & ~np.eye(ITEMS, dtype=bool)
    return (codes[:, None, 0] == codes[None, :, 0])[pairs].mean()


@pytest.mark.parametrize("name", SCHEMES)
class TestEveryScheme:
    def test_each_item_has_codes_of_its_own(self, name):
        fitted = fit(name, planted_sequences(0))
        codes = fitted.codebook.codes
        assert len({tuple(row) for row in codes.tolist()}) == ITEMS
        assert fitted.quantised_levels == codes.shape[1] - (name not in ("random", "sequential"))

    def test_items_without_a_training_position_change_no_codes_of_the_others(self, name):
        """The first 20 rows are held out: they go, or come with other categories; codes of the 100 stay."""
        sequences = tuple(rows[rows >= 20] for rows in planted_sequences(1))
        codes = codes_of(name, sequences)
        assert (codes_of(name, sequences, first=20) == codes[20:]).all()
        poisoned = tuple((f"a{row}", "b", "c") for row in range(20)) + categories()[20:]
        assert (codes_of(name, sequences, paths=poisoned)[20:] == codes[20:]).all()
        assert len({tuple(row) for row in codes.tolist()}) == ITEMS, "held-out items have codes too"

    def test_order_of_users_matters_to_numbers_by_first_appearance_only(self, name):
        sequences = planted_sequences(2)
        order = np.random.default_rng(0).permutation(len(sequences))
        same = (codes_of(name, tuple(sequences[user] for user in order)) == codes_of(name, sequences)).all()
        assert same == (name != "sequential")

    def test_a_second_build_is_the_same(self, name):
        sequences = planted_sequences(3)
        assert (codes_of(name, sequences) == codes_of(name, sequences)).all()


def test_random_numbers_follow_the_seed_and_leave_room():
    sequences = planted_sequences(0)
    codes = codes_of("random", sequences)
    assert codes.shape[1] == 3
    assert (codes_of("random", sequences, seed=1) != codes).any()
    assert codes_of("random", sequences, base=16).shape[1] == 2
    numbers = codes @ [100, 10, 1]
    assert abs(np.corrcoef(numbers, np.arange(ITEMS))[0, 1]) < 0.3


def test_sequential_numbers_are_those_of_the_first_appearance():
    sequences = tuple(np.array(items) for items in ([4, 2, 4], [2, 0], [5]))
    codes = codes_of("sequential", sequences, items=6)
    assert codes[:, 0].tolist() == [2, 4, 1, 5, 0, 3], "items 1 and 3 are held out"


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["collaborative", "hybrid collaborative", "constrained"])
def test_items_of_a_community_share_the_first_code_unless_the_graph_is_shuffled(name, seed):
    sequences = planted_sequences(seed)
    flat = np.random.default_rng(seed).permutation(np.concatenate(sequences))
    shuffled = tuple(np.split(flat, np.cumsum([len(items) for items in sequences])[:-1]))
    assert same_first_code(codes_of(name, sequences)) > 0.8
    assert same_first_code(codes_of(name, shuffled)) < 0.5, "the control"


def test_large_graphs_are_cut_by_their_vectors(monkeypatch):
    monkeypatch.setattr("ray_jobs.tokenizers.cooccurrence.SPECTRAL_ITEMS", 50)
    assert same_first_code(codes_of("collaborative", planted_sequences(0))) > 0.8


def test_a_code_names_the_node_and_short_paths_are_filled_up():
    training = np.array([True, True, True, True, False])
    paths = [("b", "x"), ("a", "x"), ("a",), (), ("0", "x", "y")]
    codes, sizes = path_codes(paths, training)
    assert codes.tolist() == [[2, 2], [1, 1], [1, FILLER], [FILLER, FILLER], [3, 3]]
    assert sizes == (4, 4)


def test_the_tree_counts_pairs_of_users_and_cuts_what_is_large():
    sequences = tuple(np.array(items) for items in ([0, 1, 1], [0, 1, 2], [3, 4], [5]))
    graph = Cooccurrence(sequences, 7)
    everything = np.arange(7)
    counts = np.zeros((7, 7))
    for a, b, times in ((0, 1, 2), (0, 2, 1), (1, 2, 1), (3, 4, 1)):
        counts[a, b] = counts[b, a] = times
    assert graph.affinity(everything).toarray().tolist() == counts.tolist()
    assert graph.links(everything).tolist() == counts.sum(0).tolist()
    paths = graph.tree(everything, clusters=2, leaf=1, depth=2, seed=0)
    assert len({path[0] for path in paths[:3]}) == 1
    assert paths[3][0] == paths[4][0] != paths[0][0]
    assert paths[5] != paths[6], "items without links are cut into pieces"
    assert max(len(path) for path in paths) == 2


def test_clusters_keep_their_bound():
    random = np.random.default_rng(0)
    vectors = np.concatenate([random.normal(size=(70, 3)), 9 + random.normal(size=(10, 3))]).astype(np.float32)
    labels = bounded_kmeans(vectors, 8, 10, seed=0)
    assert np.bincount(labels).tolist() == [10] * 8
    assert len(set(labels[70:].tolist())) == 1, "what lies together stays together"
    cost = random.random((40, 5)).astype(np.float32)
    chosen = place(cost, 8)
    assert np.bincount(chosen).tolist() == [8] * 5
    assert cost[np.arange(40), chosen].mean() < 0.5 * cost.mean()


def test_what_cannot_be_done_is_refused_with_what_would_help():
    sequences = planted_sequences(0)
    with pytest.raises(SettingError, match=r"itemindex\.branches is 4.*room for 64 training items.*raise it"):
        fit("constrained", sequences, branches=4)
    with pytest.raises(SettingError, match=r"itemindex\.base is 1, but must be at least 2"):
        ItemIndexSettings(base=1)
    context = FitContext(
        training=np.ones(1, bool), version="v", ray=load_settings().ray, run_name="r", home="", stage="s"
    )
    with pytest.raises(DataError, match="no item has one: fill the column 'categories'"):
        ItemIndex(ItemIndexSettings(scheme="semantic")).fit(np.zeros((1, 1), np.float32), ["a"], context)
    assert recipe_class("itemindex", "tokenizer") is ItemIndex
    assert dataclasses.asdict(ItemIndexSettings())["scheme"] == "collaborative"
