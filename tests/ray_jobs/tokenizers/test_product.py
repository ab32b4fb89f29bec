import numpy as np
import pytest
import torch

from ray_jobs.tokenizers.product import ProductQuantiser


def _error(quantiser, vectors):
    """Mean squared distance of whitened vectors from the centres of their codes."""
    rows = torch.from_numpy(vectors)
    parts = ((rows - quantiser.mean) @ quantiser.basis).unflatten(1, (len(quantiser.centres), -1))
    codes = quantiser.codes(rows)
    nearest = torch.stack([book[codes[:, digit]] for digit, book in enumerate(quantiser.centres)], dim=1)
    for digit, book in enumerate(quantiser.centres):
        distances = (parts[:, digit, None] - book).square().sum(dim=2)
        own = distances.gather(1, codes[:, digit, None])[:, 0]
        assert torch.allclose(own, distances.min(dim=1).values, atol=1e-5), "the nearest centre"
    return float((parts - nearest).square().mean())


def _vectors(count, dim=12):
    """In four tight groups along directions that no axis has."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(4, dim))[np.arange(count) % 4] + 0.05 * rng.normal(size=(count, dim))).astype(np.float32)


def test_parts_have_the_nearest_of_their_codes_and_more_codes_come_closer():
    vectors = _vectors(200)
    errors = []
    for size in (2, 16):
        quantiser = ProductQuantiser(12, 2, size, 4)
        assert not quantiser.fitted
        quantiser.fit(vectors)
        assert quantiser.fitted
        errors.append(_error(quantiser, vectors))
    assert errors[1] < errors[0] / 2
    parts = (torch.from_numpy(vectors) - quantiser.mean) @ quantiser.basis
    assert torch.allclose(parts.T @ parts / 200, torch.eye(4), atol=1e-4), "white, and a rotation leaves that so"
    plain = ProductQuantiser(12, 2, 16, 4)
    plain.fit(vectors, whiten=False)
    assert torch.allclose(plain.basis.T @ plain.basis, torch.eye(4), atol=1e-4), "axes as they are"
    again = ProductQuantiser(12, 2, 16, 4)
    again.fit(vectors)
    assert torch.equal(again.codes(torch.from_numpy(vectors)), quantiser.codes(torch.from_numpy(vectors)))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_fewer_vectors_than_codes_or_components_are_told_apart_all_the_same(count):
    vectors = np.random.default_rng(1).normal(size=(count, 12)).astype(np.float32)
    quantiser = ProductQuantiser(12, 4, 256, 8)
    quantiser.fit(vectors)
    codes = quantiser.codes(torch.from_numpy(vectors))
    assert len(set(map(tuple, codes.tolist()))) == count
    assert all(tensor.isfinite().all() for tensor in quantiser.state_dict().values())
    assert int(codes.max()) < count, "the rest of the codes is never assigned"


def test_vectors_without_any_difference_share_their_codes():
    quantiser = ProductQuantiser(12, 4, 16, 8)
    quantiser.fit(np.ones((20, 12), dtype=np.float32))
    assert (quantiser.codes(torch.ones(3, 12)) == quantiser.codes(torch.ones(1, 12))).all()
