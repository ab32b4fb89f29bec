from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import small_catalogue, small_histories

from infra.errors import SettingError
from ray_jobs.data.batches import Batch, InMemoryExamples, collate, make_batch
from ray_jobs.data.histories import Histories
from ray_jobs.objectives import parts
from ray_jobs.objectives.next_item import SequentialSettings, next_item_loss
from ray_jobs.recipes.sequential.base import position_ids
from ray_jobs.recipes.sequential.bert4rec import BERT4Rec, BERT4RecSettings
from ray_jobs.recipes.sequential.ensrec import EnsRec, EnsRecSettings, TextRows
from ray_jobs.recipes.sequential.hstu import HSTU, HSTUSettings
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recipes.sequential.transformer import BlockShape, TransformerBlock
from ray_jobs.recommenders.text_network import whitened
from ray_jobs.training.engine import Engine
from ray_jobs.training.phases import Phase, trainable_names
from ray_jobs.training.workers import SINGLE_WORKER
from schemas.errors import DataError

DAY = 86_400


def _hstu(**given):
    torch.manual_seed(0)
    model = HSTU(HSTUSettings(width=16, heads=2, max_history=8, dropout=0.0, **given), small_catalogue()).eval()
    for bias in model.biases:
        bias.by_position.data.normal_()
        if bias.by_time is not None:
            bias.by_time.data.normal_()
    return model


def _timed(histories, times, asked_at):
    return make_batch(histories, [""] * len(histories), times=times, asked_at=asked_at)


def test_hstu_is_causal_in_items_and_times_and_ignores_pads():
    model = _hstu()
    before = model.states(_timed([[1, 2, 3, 4]], [[10, 20, 30, 40]], [50]))
    after = model.states(_timed([[1, 2, 9, 9]], [[10, 20, 30, 9_000]], [90_000]))
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-6)
    assert not torch.allclose(before[:, 2:], after[:, 2:], atol=1e-3)
    alone = model.scores(_timed([[1, 2]], [[10, 20]], [50]))
    beside = model.scores(_timed([[1, 2], [1, 2, 3, 4, 5]], [[10, 20], [1, 2, 3, 4, 5]], [50, 60]))[:1]
    assert torch.allclose(alone, beside, atol=1e-5)


def test_hstu_sees_the_time_at_which_it_is_asked_only_when_told_to():
    for use, same in ((True, False), (False, True)):
        model = _hstu(use_request_time=use)
        soon, late = (model.scores(_timed([[1, 2]], [[10, 20]], [at])) for at in (30, 90 * DAY))
        assert torch.allclose(soon, late, atol=1e-6) is same


def test_hstu_computes_what_its_equations_say():
    model = _hstu()
    batch = _timed([[1, 2, 3]], [[0, 10, 1_000]], [5_000])
    x = model.items(batch.history + 1)[0] * 4 + model.positions.weight[5:8]
    asking = [10, 1_000, 5_000]
    for block, bias in zip(model.blocks, model.biases, strict=True):
        y = torch.nn.functional.layer_norm(x, (16,))
        mixed = torch.nn.functional.silu(y @ block.projection.weight.T)
        q, k, v, u = mixed.split(16, dim=-1)
        seen = torch.zeros(3, 16)
        for head in range(2):
            part = slice(8 * head, 8 * head + 8)
            for i in range(3):
                for j in range(i + 1):
                    bucket = int(np.log(max(1, abs(asking[i] - [0, 10, 1_000][j]))) // 0.301)
                    score = q[i, part] @ k[j, part] + bias.by_position[i - j] + bias.by_time[bucket]
                    seen[i, part] += torch.nn.functional.silu(score) / 8 * v[j, part]
        x = x + block.out(torch.nn.functional.layer_norm(seen, (16,)) * u)
    assert torch.allclose(model.states(batch)[0], torch.nn.functional.normalize(x, dim=-1), atol=1e-5)


def test_hstu_without_times_says_how_to_go_on():
    with pytest.raises(DataError, match=r"hstu.time_bias to false"):
        _hstu().scores(make_batch([[1, 2]], [""]))
    assert _hstu(time_bias=False).scores(make_batch([[1, 2]], [""])).shape == (1, 30)


def _bert(**given):
    torch.manual_seed(0)
    return BERT4Rec(BERT4RecSettings(width=16, max_history=8, **given), small_catalogue()).eval()


def test_bert4rec_sees_both_sides_of_a_gap_and_no_pads():
    model = _bert()
    masked = torch.tensor([[False, True, False]])
    first, later = (model.filled(torch.tensor([[1, 2, last]]), masked)[0, 1] for last in (3, 9))
    assert not torch.allclose(first, later, atol=1e-4)
    hidden = model.filled(torch.tensor([[1, 7, 3]]), masked)[0, 1]
    assert torch.allclose(first, hidden, atol=1e-6), "what stands under the mask is not seen"
    alone = model.scores(make_batch([[1, 2]], [""]))
    beside = model.scores(make_batch([[1, 2], [1, 2, 3, 4, 5]], ["", ""]))[:1]
    assert torch.allclose(alone, beside, atol=1e-5)


def test_bert4rec_does_not_see_the_target_it_is_asked_for():
    model = _bert()
    unknown, known = make_batch([[1, 2], []], ["", ""]), make_batch([[1, 2], []], ["", ""], np.array([3, 4]))
    assert torch.equal(model.scores(unknown), model.scores(known))


def test_bert4rec_masks_the_last_item_only_where_it_should():
    batch = make_batch([[1, 2, 3, 4]] * 200, [""] * 200, np.array([5] * 200))
    for share, expected in ((1.0, {1}), (0.0, {1, 2, 3, 4, 5})):
        model = _bert(last_item_share=share, mask_share=0.6)
        seen = []
        original = model.filled
        model.filled = lambda window, masked, kept, s=seen, f=original: s.append(masked) or f(window, masked, kept)
        torch.manual_seed(0)
        model.loss(batch)
        assert set(seen[0].sum(dim=1).tolist()) == expected
        if share == 1.0:
            assert seen[0][:, 4].all()


def test_bert4rec_cuts_long_histories_into_windows_that_step_back_from_the_end():
    items = np.arange(20) % 30
    histories = Histories(("u",), (np.append(items, [20, 21]),), np.array([20]), np.array([21]), ({},))
    examples = _bert(window_step=0.5).training_examples(histories)
    windows = [[*examples.history(row).tolist(), int(examples.targets[row])] for row in range(len(examples))]
    assert windows == [list(range(11, 20)), list(range(7, 16)), list(range(3, 12)), list(range(9))]
    short = _bert().training_examples(small_histories(users=1))
    assert len(short) == 1


def _loss(loss, states, goals, own=None, **given):
    settings = SequentialSettings(loss=loss, **given)
    own = goals[:, None] if own is None else own
    return next_item_loss(settings, states, TABLE, goals, own, torch.arange(len(goals)))


TABLE = torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(1)), dim=1)


def test_sampled_losses_become_the_full_one_with_many_negatives():
    states, goals = torch.randn(40, 8, generator=torch.Generator().manual_seed(2)), torch.arange(40)
    torch.manual_seed(0)
    # Every item is drawn about 2,000 times, so the sum over negatives is that many times the sum over the others.
    sampled = _loss("sampled_softmax", states, goals, negatives=100_000)
    scores = states @ TABLE.T
    own = scores.gather(1, goals[:, None])[:, 0]
    others = scores.masked_fill(torch.arange(50) == goals[:, None], -torch.inf)
    expected = (torch.logaddexp(own, others.logsumexp(1) + np.log(2_000)) - own).mean()
    assert float(sampled) == pytest.approx(float(expected), abs=0.02)


def test_gbce_without_calibration_is_bce_and_with_it_weighs_the_target_by_the_sampling_rate():
    states, goals = torch.randn(40, 8, generator=torch.Generator().manual_seed(2)), torch.arange(40)
    values = {}
    for t in (0.0, 1.0):
        torch.manual_seed(0)
        values[t] = float(_loss("gbce", states, goals, negatives=10, gbce_t=t))
    torch.manual_seed(0)
    drawn = torch.randint(50, (40, 10))
    liked = torch.nn.functional.softplus(-(states * TABLE[goals]).sum(-1))
    scores = torch.einsum("td,tkd->tk", states, TABLE[drawn]).masked_fill(drawn == goals[:, None], -torch.inf)
    others = torch.nn.functional.softplus(scores).sum(1)
    assert values[0.0] == pytest.approx(float((liked + others).mean()), abs=1e-5)
    assert values[1.0] == pytest.approx(float((10 / 49 * liked + others).mean()), abs=1e-5)


def test_bce_never_draws_what_the_user_has():
    states = torch.zeros(30, 8)
    states[:, 0] = 1
    settings = SequentialSettings(loss="bce")
    free = torch.arange(2).expand(30, -1)
    torch.manual_seed(0)
    one = float(next_item_loss(settings, states, TABLE[:3], torch.zeros(30, dtype=torch.int64), free, torch.arange(30)))
    wanted = torch.nn.functional.softplus(-TABLE[0, 0]) + torch.nn.functional.softplus(TABLE[2, 0])
    assert one == pytest.approx(float(wanted), abs=1e-5)


@pytest.mark.parametrize("loss", ["ce", "sampled_softmax", "bce", "gbce"])
def test_losses_in_pieces_and_under_bfloat16_are_those_at_once_in_float32(loss, monkeypatch):
    states, goals = torch.randn(40, 8, generator=torch.Generator().manual_seed(2), requires_grad=True), torch.arange(40)

    def given():
        torch.manual_seed(0)
        states.grad = None
        value = _loss(loss, states, goals, negatives=10, temperature=0.05)
        value.backward()
        return float(value), states.grad.clone()

    whole, gradient = given()
    with torch.autocast("cpu", torch.bfloat16):
        assert given()[0] == whole, "rounded before a low temperature magnifies it"
    monkeypatch.setattr(parts, "NUMBERS_AT_ONCE", 1000)
    pieces = given()
    assert pieces[0] == pytest.approx(whole, rel=1e-6)
    assert torch.allclose(pieces[1], gradient, atol=1e-6)


def test_losses_refuse_settings_without_meaning():
    for wrong in ({"negatives": 0}, {"temperature": 0.0}, {"gbce_t": 1.5}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            SequentialSettings(**wrong)
    with pytest.raises(SettingError, match="width 10 is not a multiple of heads 3"):
        BlockShape(width=10, heads=3, dropout=0.0, inner=10)


def test_rotary_positions_depend_on_distance_only():
    torch.manual_seed(0)
    block = TransformerBlock(BlockShape(width=8, heads=2, dropout=0.0, inner=8, rotary=True)).eval()
    x = torch.randn(1, 3, 8)
    shifted = torch.cat([torch.zeros(1, 4, 8), x], dim=1)
    visible = torch.ones(7, 7, dtype=torch.bool).tril()
    visible[4:, :4] = False
    assert torch.allclose(block(shifted, visible=visible)[:, 4:], block(x, causal=True), atol=1e-5)
    swapped = block(x[:, [1, 0, 2]], causal=True)
    assert not torch.allclose(swapped[:, 2], block(x, causal=True)[:, 2], atol=1e-4)


def test_hooks_hide_and_bias_attention():
    torch.manual_seed(0)
    for kind in ("softmax", "pointwise"):
        block = TransformerBlock(BlockShape(width=8, heads=2, dropout=0.0, inner=0, attention=kind, gate=True)).eval()
        x = torch.randn(1, 4, 8)
        changed = x.clone()
        changed[:, 1] = torch.randn(8)
        visible = torch.ones(4, 4, dtype=torch.bool)
        visible[3, 1] = False
        assert torch.allclose(block(x, visible=visible)[:, 3], block(changed, visible=visible)[:, 3], atol=1e-6)
        assert not torch.allclose(block(x)[:, 3], block(changed)[:, 3], atol=1e-4)
        bias = torch.zeros(4, 4)
        bias[3, 1] = 9
        assert not torch.allclose(block(x)[:, 3], block(x, bias=bias)[:, 3], atol=1e-4)
        assert torch.allclose(block(x)[:, :3], block(x, bias=bias)[:, :3], atol=1e-6)


def test_the_asked_position_has_the_same_place_however_long_the_history():
    ids = position_ids(torch.tensor([1, 3, 8]), 8, 8)
    assert [row[length - 1] for row, length in zip(ids.tolist(), (1, 3, 8), strict=True)] == [7, 7, 7]
    assert ids[2].tolist() == list(range(8))


def test_times_reach_the_model_with_their_items():
    histories = small_histories(users=3)
    timed = replace(histories, times=tuple(np.arange(len(items)) * DAY for items in histories.items))
    model = _hstu()
    examples = model.training_examples(timed)
    from ray_jobs.data.batches import InMemoryExamples

    batch = next(InMemoryExamples(examples).batches(3, None))
    assert isinstance(batch, Batch)
    assert batch.times is not None
    for row, length in enumerate(batch.lengths.tolist()):
        assert batch.times[row, :length].tolist() == [DAY * step for step in range(length)]
        assert int(batch.asked_at[row]) == DAY * length


def test_a_position_weighs_alike_whatever_stands_beside_it_in_a_batch():
    """Gradients of an epoch, added up: with short and long histories in batches of their own, and mixed."""
    catalogue = small_catalogue()
    rng = np.random.default_rng(0)
    rows = [rng.integers(30, size=length) for length in [3] * 8 + [12] * 8]
    histories = Histories(
        tuple(f"u{n:02}" for n in range(16)),
        tuple(np.append(row, [0, 1]) for row in rows),
        np.array([len(row) for row in rows]),
        np.array([len(row) + 1 for row in rows]),
        ({},) * 16,
    )

    def gradient(order, weigh):
        torch.manual_seed(0)
        model = SASRec(SASRecSettings(width=8, heads=1, layers=1, dropout=0.0, weigh=weigh), catalogue)
        source = InMemoryExamples(model.training_examples(histories))
        model.terms_per_example = model.expected_terms(source)
        phase = Phase(name="all", epochs=1, learning_rate=1.0, optimizer="sgd", gradient_clip=1e9)
        engine = Engine(model, phase, trainable_names(model, phase), SINGLE_WORKER)
        total = torch.zeros_like(model.items.weight)
        for start in (0, 8):
            engine.step(collate(source.examples, np.array(order[start : start + 8])), 0.0)
            total += model.items.weight.grad
        return total

    apart, mixed = list(range(16)), [n // 2 + 8 * (n % 2) for n in range(16)]
    assert torch.allclose(gradient(apart, "positions"), gradient(mixed, "positions"), atol=1e-6)
    assert not torch.allclose(gradient(apart, "batches"), gradient(mixed, "batches"), atol=1e-3)


def test_ensrec_adds_the_scores_of_two_sasrecs_that_learn_one_after_the_other():
    torch.manual_seed(0)
    model = EnsRec(EnsRecSettings(width=16, text_width=24, dropout=0.0, text_dropout=0.0, layers=1), small_catalogue())
    batch = make_batch([[1, 7, 13], [20]], ["", ""], np.array([19, 3]))
    ids, texts = model.phases()
    assert torch.equal(model.scores(batch), model.ids.scores(batch)), "texts that are not trained rank nothing"
    assert trainable_names(model, ids) == {name for name, _ in model.named_parameters() if name.startswith("ids.")}
    assert trainable_names(model, texts) == {name for name, _ in model.named_parameters() if name.startswith("texts.")}
    assert (texts.learning_rate, texts.weight_decay) == (2e-3, 0.01)
    torch.nn.init.normal_(model.texts.text_map[-1].weight)
    assert torch.equal(model.scores(batch), model.ids.scores(batch) + model.texts.scores(batch))
    assert not torch.equal(model.scores(batch).argsort(), model.ids.scores(batch).argsort())
    losses = model.loss(batch)
    assert float(losses["texts"]) == pytest.approx(float(model.texts.loss(batch)["loss"]))
    losses["texts"].backward()
    assert all(parameter.grad is None for parameter in model.ids.parameters())
    assert not any("encoder" in name or "texts.items" in name for name in model.state_dict())


def test_whitened_texts_still_tell_clusters_apart():
    model = EnsRec(EnsRecSettings(width=16), small_catalogue()).texts
    model.encode_texts()
    assert torch.allclose(model.texts.mean(dim=0), torch.zeros(model.texts.shape[1]), atol=1e-5)
    torch.manual_seed(0)
    drawn = torch.randn(5000, 6) @ torch.randn(6, 6) + 3
    before, after = (torch.linalg.eigvalsh(torch.cov(each.T)) for each in (drawn, whitened(drawn)))
    assert before[-1] > 500 * before[0]
    assert after[-1] < 5 * after[0]
    assert torch.allclose(after[1:], torch.ones(5), atol=0.05), "the smallest direction is shrunk"
    alike = torch.corrcoef(model.texts)
    assert alike[0, 1:5].mean() > alike[0, 5:].mean() + 0.05, "items of a cluster have similar texts"


def test_only_rows_that_are_scored_are_computed():
    rows = TextRows(torch.randn(10, 4), torch.nn.Linear(4, 3))
    reads = []
    rows.text_map.register_forward_hook(lambda _, inputs, __: reads.append(len(inputs[0])))
    settings = EnsRecSettings(width=3, heads=1, loss="sampled_softmax", negatives=5)
    arguments = torch.randn(2, 3), torch.tensor([1, 2]), torch.tensor([[0, 1], [1, 2]]), torch.arange(2)
    torch.manual_seed(0)
    lazy = next_item_loss(settings, arguments[0], rows, *arguments[1:])
    assert reads == [2, 5]
    torch.manual_seed(0)
    assert torch.allclose(lazy, next_item_loss(settings, arguments[0], rows[:], *arguments[1:]))
