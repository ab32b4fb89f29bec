import numpy as np
import torch

from ray_jobs.encoders import nearest
from ray_jobs.encoders.nearest import nearest_others


def test_the_nearest_are_those_of_a_plain_loop_in_any_parts(monkeypatch):
    rng = np.random.default_rng(0)
    vectors, groups = torch.from_numpy(rng.normal(size=(23, 5))), torch.from_numpy(rng.integers(6, size=23))
    unit = vectors / vectors.norm(dim=1, keepdim=True)

    def by_hand(row, allowed):
        scores = {other: float(unit[row] @ unit[other]) for other in range(23) if allowed(row, other)}
        return sorted(scores, key=scores.get, reverse=True)[:4]

    for scores_at_once in (1, 23 * 7, 10**6):
        monkeypatch.setattr(nearest, "_SCORES_AT_ONCE", scores_at_once)
        found = nearest_others(vectors, 4).tolist()
        assert found == [by_hand(row, lambda a, b: a != b) for row in range(23)]
        found = nearest_others(vectors, 4, groups).tolist()
        assert found == [by_hand(row, lambda a, b: bool(groups[a] != groups[b])) for row in range(23)]


def test_missing_neighbours_are_padding_on_the_right():
    found = nearest_others(torch.eye(3), 5)
    assert found.shape == (3, 5)
    assert [sorted(row[:2]) for row in found.tolist()] == [[1, 2], [0, 2], [0, 1]]
    assert (found[:, 2:] == -1).all()
    alike = nearest_others(torch.ones(3, 2), 2, torch.tensor([4, 4, 9]))
    assert alike[:2].tolist() == [[2, -1], [2, -1]]
    assert sorted(alike[2].tolist()) == [0, 1]
    assert nearest_others(torch.zeros(0, 4), 3).shape == (0, 3)
