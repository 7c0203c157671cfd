"""Which optimiser, which groups, which rate."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from boxmatch.training.optimizers import make_optimizer, peak_rate, rate_warning
from boxmatch.training.options import OptimizerOptions


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_adam_takes_a_tenth_of_the_base_rate_and_every_process_adds_one():
    assert peak_rate(OptimizerOptions("adam"), 1, 16)[0] == pytest.approx(1e-3)
    assert peak_rate(OptimizerOptions("adamw"), 4, 64)[0] == pytest.approx(4e-3)
    assert peak_rate(OptimizerOptions("sgd"), 2, 32)[0] == pytest.approx(2e-2)


def test_the_rate_may_follow_the_pictures_per_step_and_says_how():
    rate, rule = peak_rate(OptimizerOptions("sgd", reference_batch_size=64), 2, 128)
    assert rate == pytest.approx(0.02)
    assert "128 pictures per step / 64" in rule


@pytest.mark.parametrize("name, decay", [("sgd", 1e-4), ("adamw", 0.01), ("adam", 0.0)])
def test_weight_decay_is_the_usual_one_of_each_optimiser(name: str, decay: float):
    made = make_optimizer(network(), OptimizerOptions(name), 0.1)  # type: ignore[arg-type]
    assert type(made).__name__.lower() == name
    assert [group["weight_decay"] for group in made.param_groups] == [decay]


def test_norms_and_biases_can_be_spared_from_decay():
    module = network()
    options = OptimizerOptions("sgd", weight_decay=5e-4, decay_norm_and_bias=False)
    made = make_optimizer(module, options, 0.1)
    decay = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in module.named_parameters()} == {
        "0.weight": 5e-4,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }


def settings_of(module: nn.Module, **options: object) -> dict[str, tuple[float, float]]:
    """Rate and decay of every weight."""
    made = make_optimizer(module, OptimizerOptions("sgd", **options), 0.1)  # type: ignore[arg-type]
    found = {
        id(p): (group["lr"], group["weight_decay"]) for group in made.param_groups for p in group["params"]
    }
    return {name: found[id(p)] for name, p in module.named_parameters()}


def test_atss_doubles_the_rate_of_biases_and_spares_them_from_decay():
    assert settings_of(network(), no_decay=("bias",), bias_rate=2.0) == {
        "0.weight": (0.1, 1e-4),
        "0.bias": (0.2, 0.0),
        "1.weight": (0.1, 1e-4),
        "1.bias": (0.2, 0.0),
    }


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4)])
def test_dw_spares_norms_from_decay_and_nothing_else(norm: nn.Module):
    assert settings_of(nn.Sequential(nn.Conv2d(3, 4, 1), norm), no_decay=("norm",)) == {
        "0.weight": (0.1, 1e-4),
        "0.bias": (0.1, 1e-4),
        "1.weight": (0.1, 0.0),
        "1.bias": (0.1, 0.0),
    }


def test_a_rate_for_another_number_of_pictures_is_worth_a_warning():
    sgd = OptimizerOptions("sgd")
    assert rate_warning(sgd, 0.01, 16) is None and rate_warning(sgd, 0.005, 8) is None
    high, low = rate_warning(sgd, 0.01, 2), rate_warning(sgd, 0.0001, 64)
    assert high is not None and "0.01 is far above 0.00125" in high and "may diverge" in high
    assert low is not None and "far below 0.04" in low
    assert rate_warning(OptimizerOptions("adam"), 0.01, 1) is None


def test_momentum_is_that_of_sgd_and_beta1_of_adam():
    sgd = make_optimizer(network(), OptimizerOptions("sgd", momentum=0.8, nesterov=True), 0.1)
    assert (sgd.param_groups[0]["momentum"], sgd.param_groups[0]["nesterov"]) == (0.8, True)
    adam = make_optimizer(network(), OptimizerOptions("adam", momentum=0.8), 0.1)
    assert adam.param_groups[0]["betas"] == (0.8, 0.999)


def test_frozen_weights_are_left_out_and_all_frozen_is_refused():
    module = network()
    module[0].requires_grad_(False)
    made = make_optimizer(module, OptimizerOptions(), 0.1)
    assert sum(len(group["params"]) for group in made.param_groups) == 2
    with pytest.raises(ValueError, match="all of them frozen"):
        make_optimizer(module.requires_grad_(False), OptimizerOptions(), 0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "lion"},
        {"base_lr": 0},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"reference_batch_size": 0},
        {"no_decay": ("scale",)},
        {"bias_rate": 0.0},
    ],
)
def test_values_that_make_no_optimiser_are_refused(options: dict[str, object]):
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(options))):
        OptimizerOptions(**options)  # type: ignore[arg-type]


def test_one_step_moves_the_weights():
    module = network()
    made = make_optimizer(module, OptimizerOptions("sgd"), 0.1)
    before = module[0].weight.detach().clone()
    module(torch.randn(2, 3, 4, 4)).square().sum().backward()
    made.step()
    assert not torch.equal(before, module[0].weight)
