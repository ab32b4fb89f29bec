from dataclasses import replace

import pytest
import torch
from small_training import PLAIN, TwoLosses, fit_two, numbers, small_fit, small_plan, two_losses
from torch import nn

from infra.errors import SettingError
from ray_jobs.training.engine import Engine, make_optimizer
from ray_jobs.training.loop import Hooks, fit
from ray_jobs.training.phases import Phase, trainable_names
from ray_jobs.training.trainable import TERMS
from ray_jobs.training.workers import SINGLE_WORKER


def test_phases_follow_each_other_and_each_trains_what_it_names_on_the_losses_it_weighs():
    phases = (
        {"name": "table", "trainable": ("items.*",), "losses": {"size": 1.0}, "epochs": 2, "evaluate_every": 1},
        {"name": "all", "losses": {"next_item": 1.0, "size": 0.5}, "evaluate_every": 2, "epochs": 4},
    )
    model, train, valid = two_losses(replace(PLAIN, phases=phases))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = []
    state = fit(model, train, valid, hooks=Hooks(on_checkpoint=lambda state: kept.append(dict(state.current))))
    assert [(r["phase"], r["epoch"]) for r in state.records] == [("table", 1), ("table", 2)] + [
        ("all", epoch) for epoch in (3, 4, 5, 6)
    ]
    assert ["valid_ndcg_10" in r for r in state.records] == [True, True, False, True, False, True]
    assert len(kept) == 4, "a checkpoint for each evaluation"
    changed = {name for name, tensor in kept[0].items() if not torch.equal(tensor, before[name])}
    assert changed == {"items.weight"}
    assert kept[0]["items.weight"].square().mean() < before["items.weight"].square().mean()
    changed = {name for name, tensor in state.current.items() if not torch.equal(tensor, before[name])}
    assert changed == set(before)
    for record in state.records[2:]:
        assert record["loss"] == pytest.approx(record["next_item"] + 0.5 * record["size"], rel=1e-6)
    assert state.records[0]["loss"] == pytest.approx(state.records[0]["size"], rel=1e-6)
    assert state.best_epoch in (4, 6)
    assert all(p.requires_grad for p in model.parameters()), "what was frozen for a phase can learn again"


def test_a_run_cut_between_and_inside_phases_goes_on_as_if_it_had_not_been():
    phases = ({"trainable": ("blocks.*", "norm.*"), "epochs": 2}, {"epochs": 2, "learning_rate": 1e-3})
    settings = replace(PLAIN, phases=phases)
    whole, state = small_fit(small_plan(settings, "sasrec")), None
    for _ in range(100):
        if state is not None and state.finished:
            break
        state = small_fit(small_plan(settings, "sasrec"), state=state, hooks=Hooks(stop=lambda: True))
    assert numbers(state) == numbers(whole)
    assert all(torch.equal(whole.best[name], state.best[name]) for name in whole.best)
    assert [r["phase"] for r in whole.records] == ["phase 1", "phase 1", "phase 2", "phase 2"]


def test_what_a_phase_names_has_to_exist():
    with pytest.raises(SettingError, match=r"phases\[1\]: epoch is no setting; there are: name, trainable"):
        replace(PLAIN, phases=({}, {"epoch": 3}))
    with pytest.raises(SettingError, match=r"sasrec\.phases\[0\]: optimizer of phase 'phase 1': Input should be"):
        replace(PLAIN, phases=({"optimizer": "lion"},))
    with pytest.raises(SettingError, match="learning_rate of phase 'phase 1' is 0, but must be above 0"):
        replace(PLAIN, phases=({"learning_rate": 0},))
    with pytest.raises(SettingError, match=r"trainable='head.*' matches none of the 28 trainable parameters"):
        fit_two(phases=({"trainable": ("items.*", "head.*")},))
    with pytest.raises(SettingError, match=r"phase 'phase 2' weights text, which .* are: loss, next_item, size"):
        fit_two(phases=({}, {"losses": {"text": 1.0}}))


def test_a_frozen_parameter_of_the_recipe_is_trained_by_no_pattern():
    model, _, _ = two_losses()
    model.positions.weight.requires_grad_(False)
    assert "positions.weight" not in trainable_names(model, PLAIN.phase())
    with pytest.raises(SettingError, match="positions"):
        trainable_names(model, PLAIN.phase(trainable=("positions.*",)))


def test_parts_of_a_batch_give_the_steps_of_the_whole_batch():
    assert small_plan(PLAIN, "sasrec").train.targets.shape[0] % 32 != 0, "the last batch is incomplete"
    gradient = {"optimizer": "sgd", "learning_rate": 0.1}
    whole, model = fit_two(**gradient)
    for parts in (2, 5, 32):
        state, other = fit_two(accumulate=parts, **gradient)
        for mine, theirs in zip(state.records, whole.records, strict=True):
            same = ("loss", "next_item", "size", "learning_rate")
            assert [mine[name] for name in same] == pytest.approx([theirs[name] for name in same], rel=1e-4)
        for name, tensor in other.state_dict().items():
            torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-4, atol=1e-6)

    class Unweighed(TwoLosses):
        def loss(self, batch):
            return {name: value for name, value in super().loss(batch).items() if name != TERMS}

    _, train, valid = two_losses()
    torch.manual_seed(0)
    settings = replace(PLAIN, accumulate=5, **gradient)
    wrong = fit(Unweighed(settings, small_plan(settings, "sasrec").catalogue), train, valid)
    assert wrong.records[1]["loss"] != pytest.approx(whole.records[1]["loss"], rel=1e-4)
    with pytest.raises(SettingError, match="a batch of 32 cannot be cut into more parts"):
        replace(PLAIN, accumulate=33)


def test_bfloat16_is_used_where_it_is_asked_for_and_learns_the_same():
    seen = []

    class Watched(TwoLosses):
        def states(self, batch, kept=None):
            states = super().states(batch, kept)
            seen.append(self.blocks[0].projection(states).dtype)
            return states

    for precision, dtype in (("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)):
        _, train, _ = two_losses()
        settings = replace(PLAIN, precision=precision)
        torch.manual_seed(0)
        model = Watched(settings, small_plan(settings, "sasrec").catalogue)
        phase = settings.phase()
        engine = Engine(model, phase, trainable_names(model, phase), SINGLE_WORKER)
        losses = [float(engine.step(batch, 1e-2)["loss"]) for _ in range(3) for batch in train.batches(32, 1)]
        assert set(seen) == {dtype}
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert losses[-1] < losses[0] - 0.1
        seen.clear()


@pytest.mark.parametrize(("name", "rate"), [("adamw", 1e-2), ("adam", 1e-2), ("sgd", 0.1), ("adafactor", 0.1)])
def test_each_optimiser_learns_and_its_state_is_kept(name, rate):
    model, train, _ = two_losses()
    phase = PLAIN.phase(optimizer=name)
    names = trainable_names(model, phase)
    first, second = Engine(model, phase, names, SINGLE_WORKER), None
    losses = []
    for number, batch in enumerate(list(train.batches(32, 1)) * 4):
        losses.append(float((second or first).step(batch, rate)["loss"]))
        if number == 3:
            second = Engine(model, phase, names, SINGLE_WORKER)
            second.load_optimizer_state(first.optimizer_state())
            kept, loaded = first.optimizer_state(), second.optimizer_state()
            assert set(kept) == set(loaded) == set(names)
            assert all(torch.equal(kept[n][key], loaded[n][key]) for n in kept for key in kept[n])
    assert losses[-1] < losses[0] - 0.1


def test_betas_and_decay_reach_the_optimiser():
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
    settings = replace(PLAIN, beta2=0.95, weight_decay=0.1)
    groups = make_optimizer(parameters, settings.phase()).param_groups
    assert [(g["betas"], g["weight_decay"]) for g in groups] == [((0.9, 0.95), 0.1), ((0.9, 0.95), 0.0)]
    assert make_optimizer(parameters, settings.phase(optimizer="sgd")).param_groups[0]["momentum"] == 0.9


def test_schedules_after_the_warm_up():
    phase = Phase(name="x", epochs=1, learning_rate=1.0, warmup=0.1)
    linear, constant = replace(phase, schedule="linear"), replace(phase, schedule="constant")
    assert [linear.rate(step, 100) for step in (0, 9, 10, 55, 100)] == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.0])
    assert [constant.rate(step, 100) for step in (0, 9, 10, 55, 100)] == pytest.approx([0.1, 1.0, 1.0, 1.0, 1.0])
    assert phase.rate(55, 100) == pytest.approx(0.5)


def test_a_recipe_may_have_phases_of_its_own_which_settings_replace():
    class Staged(TwoLosses):
        def phases(self):
            return (self.settings.phase("first", epochs=1), self.settings.phase("second", losses={"size": 1}))

    plan = small_plan(PLAIN, "sasrec")
    model = Staged(PLAIN, plan.catalogue)
    assert [(p.name, p.epochs) for p in model.planned_phases()] == [("first", 1), ("second", 2)]
    model = Staged(replace(PLAIN, phases=({"name": "only"},)), plan.catalogue)
    assert [p.name for p in model.planned_phases()] == ["only"]
    assert [p.name for p in plan.build().planned_phases()] == ["train"]
