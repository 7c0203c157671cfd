"""The average of the weights, entry by entry."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from boxmatch.training.ema import average_of, decay_at, matched_entries, update_average
from boxmatch.training.options import EMAOptions


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def change(module: nn.Module) -> None:
    """A training step's effect: other weights, other statistics, one more batch counted."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
        module.train()
        module(torch.randn(2, 3, 4, 4))


def test_linear_ramp_follows_the_reference_for_every_entry():
    module, total = network(), 5
    average = average_of(module)
    expected = {name: value.clone().double() for name, value in module.state_dict().items()}
    for step in range(total):
        change(module)
        decay = decay_at(EMAOptions("linear_ramp"), step, total)
        assert decay == step / total
        update_average(matched_entries(average, module), decay)
        for name, value in module.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not torch.equal(average[0].weight, module[0].weight)


def test_batch_norm_statistics_are_averaged_and_counters_copied():
    module = network()
    average = average_of(module)
    before = average[1].running_mean.clone()
    change(module)
    update_average(matched_entries(average, module), 0.75)
    torch.testing.assert_close(average[1].running_mean, 0.75 * before + 0.25 * module[1].running_mean)
    assert int(average[1].num_batches_tracked) == int(module[1].num_batches_tracked) == 1


def test_the_first_step_of_a_ramp_takes_the_weights_as_they_are():
    module = network()
    average = average_of(module)
    change(module)
    update_average(matched_entries(average, module), decay_at(EMAOptions("linear_ramp"), 0, 100))
    for old, new in zip(average.state_dict().values(), module.state_dict().values()):
        assert torch.equal(old, new)


def test_constant_decay_warms_up_to_its_value():
    options = EMAOptions("constant", 0.999, warmup_steps=100)
    decays = [decay_at(options, step, 1000) for step in range(1000)]
    assert decays == sorted(decays) and decays[0] < 0.02
    assert decays[-1] == pytest.approx(0.999, abs=1e-3)
    assert decay_at(EMAOptions("constant", 0.999, warmup_steps=0), 0, 1000) == 0.999


def test_the_average_takes_no_gradient_and_shares_no_memory():
    module = network()
    average = average_of(module)
    assert not any(p.requires_grad for p in average.parameters())
    assert all(p.requires_grad for p in module.parameters())
    pointers = {p.data_ptr() for p in module.parameters()}
    assert not pointers & {p.data_ptr() for p in average.parameters()}


@pytest.mark.parametrize("options", [{"kind": "linear"}, {"decay": 1.0}, {"warmup_steps": -1}])
def test_values_that_make_no_average_are_refused(options: dict[str, object]):
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(options))):
        EMAOptions(**options)  # type: ignore[arg-type]
