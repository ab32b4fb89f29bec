"""What IDNP reads of a history, and when."""

import numpy as np
import pytest
import torch
from small_world import small_catalogue
from torch.distributions import Normal

from ray_jobs.data.batches import make_batch
from ray_jobs.recipes.sequential.idnp import IDNP, IDNPSettings, WindowReader, divergence_of
from schemas.errors import DataError

DAY = 86_400
ITEMS = [3, 1, 4, 15, 9, 2, 6, 5]
TIMES = [1, 2, 30 * DAY, 30 * DAY + 5, 31 * DAY, 31 * DAY + 9, 50 * DAY, 50 * DAY + 1]


def idnp(**given):
    torch.manual_seed(0)
    settings = IDNPSettings(**{"width": 16, "window": 2, "layers": 2, "dropout": 0.0, **given})
    model = IDNP(settings, small_catalogue()).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.normal_(std=0.5 if weights.dim() > 1 and name != "items.weight" else 1)
        model.items.weight[0].zero_()
    return model


def asked(items=ITEMS, times=TIMES, at=90 * DAY):
    return make_batch([items], [""], np.array([7]), times=[times], asked_at=[at])


def scores(model, *given, **more):
    with torch.no_grad():
        return model.scores(asked(*given, **more))[0]


def in_order(values, order):
    """The windows of two values in another order."""
    return [value for window in order for value in values[2 * window : 2 * window + 2]]


def test_the_order_of_the_windows_of_the_context_does_not_matter_but_their_times_do():
    model, order = idnp(), [2, 0, 1, 3]
    before = scores(model)
    assert torch.allclose(scores(model, in_order(ITEMS, order), in_order(TIMES, order)), before, atol=1e-5)
    assert not torch.allclose(scores(model, in_order(ITEMS, order)), before, atol=1e-2)
    assert not torch.allclose(scores(model, ITEMS, in_order(TIMES, order)), before, atol=1e-2)
    newest = [3, 0, 1, 2]
    assert not torch.allclose(scores(model, in_order(ITEMS, newest), in_order(TIMES, newest)), before, atol=1e-2)
    within = [ITEMS[1], ITEMS[0], *ITEMS[2:]]
    assert not torch.allclose(scores(model, within), before, atol=1e-3), "a window is no set"


def test_times_count_from_the_newest_item_and_the_answer_depends_on_when_it_is_asked():
    for timed in (True, False):
        model = idnp(timed=timed)
        soon, late = scores(model, at=51 * DAY), scores(model, at=90 * DAY)
        assert torch.allclose(soon, late, atol=1e-3) is not timed
        moved = scores(model, times=[time + 10**8 for time in TIMES], at=90 * DAY + 10**8)
        assert torch.allclose(moved, late, atol=1e-5)
        assert torch.allclose(scores(model, times=TIMES[::-1], at=51 * DAY), soon, atol=1e-3) is not timed


def test_the_latent_variable_is_of_all_times_and_not_of_the_one_that_is_asked_for():
    model, drawn = idnp(), []
    model.latent.register_forward_hook(lambda _, __, found: drawn.append(found[0].mean))
    scores(model, at=51 * DAY), scores(model, at=90 * DAY), scores(model, ITEMS[2:], TIMES[2:])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[1], drawn[2], atol=1e-3)


def test_a_position_reads_only_what_lies_before_it_and_no_padding():
    model = idnp()
    later = make_batch(
        [ITEMS], [""], times=[[*TIMES[:4], *(time + 7 * DAY for time in TIMES[4:])]], asked_at=[99 * DAY]
    )
    changed = make_batch([[*ITEMS[:4], 20, 21, 22, 23]], [""], times=[TIMES], asked_at=[90 * DAY])
    with torch.no_grad():
        before = model.states(asked())[0]
        assert torch.allclose(model.states(later)[0, :3], before[:3], atol=1e-5)
        assert not torch.allclose(model.states(later)[0, 3], before[3], atol=1e-3), "asked when the next item comes"
        assert torch.allclose(model.states(changed)[0, :4], before[:4], atol=1e-5)
        for length in range(1, len(ITEMS) + 1):
            alone = scores(model, ITEMS[:length], TIMES[:length], at=[*TIMES, 90 * DAY][length])
            assert torch.allclose(alone, before[length - 1] @ model.item_vectors().T, atol=1e-4)
        several = make_batch([[], [7], ITEMS], [""] * 3, times=[[], [9], TIMES], asked_at=[9, DAY, 90 * DAY])
        beside = model.scores(several)
        assert torch.isfinite(beside).all()
        assert torch.allclose(beside[1], scores(model, [7], [9], DAY), atol=1e-5)
        assert torch.allclose(beside[2], scores(model), atol=1e-5)


def test_a_window_is_read_by_dilated_convolutions_and_attention_over_scales_and_steps():
    torch.manual_seed(0)
    reader = WindowReader(IDNPSettings(width=8, window=5, layers=3, dropout=0.0)).eval()
    torch.nn.init.normal_(reader.weight_at)
    x, outputs = torch.randn(1, 5, 8), []
    given = x
    for layer, (convolution, norm) in enumerate(zip(reader.convolutions, reader.norms, strict=True)):
        kernel = convolution.weight.unflatten(1, (3, 8)).transpose(1, 2)
        dilation = 2**layer
        near = torch.nn.functional.conv1d(
            x.transpose(1, 2), kernel, convolution.bias, padding=dilation, dilation=dilation
        )
        x = norm(x + torch.nn.functional.gelu(near.transpose(1, 2)))
        outputs.extend(x[0])
    weights = torch.stack([reader.weight(out)[0] + at for out, at in zip(outputs, reader.weight_at, strict=True)])
    expected = weights.softmax(0) @ torch.stack(outputs)
    assert torch.allclose(reader(given, torch.ones(1, 5, dtype=torch.bool))[0], expected, atol=1e-5)


def test_the_divergences_are_those_of_gaussians():
    whole, part = (
        Normal(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.2]])),
        Normal(torch.zeros(1, 2), torch.ones(1, 2)),
    )
    assert float(divergence_of(whole, part, "wasserstein")) == pytest.approx(1 + 4 + 0.25 + 0.64)
    kl = sum(-np.log(s) + (s**2 + m**2) / 2 - 0.5 for m, s in ((1, 0.5), (2, 0.2)))
    assert float(divergence_of(whole, part, "kl")) == pytest.approx(kl, abs=1e-5)


def test_training_reads_a_part_of_the_windows_and_draws_what_ranking_takes_the_mean_of():
    model, chosen = idnp(), []
    model.latent.register_forward_hook(lambda _, given, __: chosen.append(given[2:]))
    assert model.loss(asked())["divergence"].item() == 0, "all windows, twice"
    assert torch.equal(model.states(asked()), model.states(asked()))
    model.train()
    losses = [model.loss(asked()) for _ in range(50)]
    losses = [{name: loss.item() for name, loss in each.items()} for each in losses]
    assert all(each["divergence"] > 0 for each in losses)
    assert losses[0]["loss"] == pytest.approx(losses[0]["next_item"] + 0.1 * losses[0]["divergence"])
    for real, context in chosen:
        assert real.sum(dim=-1).tolist() == [[1, 1, 2, 2, 3, 3, 4, 4]]
        assert not (context & ~real).any()
        assert context.any(dim=-1).all()
    newest = {int(context[0, -1].sum()) for _, context in chosen}
    assert newest == {1, 2, 3, 4}


def test_without_the_latent_path_no_weights_of_it_are_left():
    model = idnp(latent=False).train()
    losses = model.loss(asked())
    losses["loss"].backward()
    assert "divergence" not in losses
    assert all(weight.grad is not None for weight in model.parameters())


def test_idnp_without_times_says_how_to_go_on():
    with pytest.raises(DataError, match=r"idnp.timed to false"):
        idnp().scores(make_batch([[1, 2]], [""]))
    assert idnp(timed=False).scores(make_batch([[1, 2]], [""])).shape == (1, 30)
