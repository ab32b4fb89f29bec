import pytest
import torch
from small_training import fit_two


def test_compiled_losses_are_those_of_the_plain_recipe(monkeypatch):
    compiled = []
    real = torch.compile

    def compile_without_a_compiler(module, **given):
        compiled.append(given)
        return real(module, backend="eager", **given)

    monkeypatch.setattr(torch, "compile", compile_without_a_compiler)
    plain, _ = fit_two(epochs=1)
    state, _ = fit_two(epochs=1, compile=True)
    assert compiled == [{"dynamic": True}]
    assert state.records[0]["loss"] == pytest.approx(plain.records[0]["loss"], rel=1e-6)
