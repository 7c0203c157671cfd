"""Learning rate and momentum of every step, against PyTorch's own one-cycle and by hand."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.optim.lr_scheduler import OneCycleLR

from boxmatch.training.options import ScheduleOptions
from boxmatch.training.schedules import StepSchedule, momentum, rate_factor


def optimizer(kind: type = torch.optim.SGD, rate: float = 0.01, **options: object) -> torch.optim.Optimizer:
    return kind([torch.nn.Parameter(torch.zeros(1))], lr=rate, **options)


@pytest.mark.parametrize("total, epochs, warmup_epochs", [(720, 60, 3), (12, 3, 1), (50, 7, 2.5)])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_one_cycle_is_the_one_of_pytorch(total: int, epochs: int, warmup_epochs: float, kind: type):
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    theirs, ours = optimizer(kind, **options), optimizer(kind, **options)
    reference = OneCycleLR(theirs, max_lr=0.01, total_steps=total, pct_start=warmup_epochs / epochs)
    schedule = StepSchedule(
        ours, ScheduleOptions(warmup_epochs=warmup_epochs), total, warmup_epochs * total / epochs
    )
    for step in range(total):
        for name in ("lr", "momentum") if kind is torch.optim.SGD else ("lr", "betas"):
            assert ours.param_groups[0][name] == pytest.approx(theirs.param_groups[0][name], rel=1e-9), step
        if step + 1 < total:
            for each in (theirs, ours):
                each.step()
            reference.step()
            schedule.step()


def test_rates_are_those_the_reference_printed_for_pascal_voc():
    # Observed with the reference: 689 steps per epoch, 400 epochs, 3 of warm-up, Adam at 1e-3.
    options = ScheduleOptions()
    rates = [1e-3 * rate_factor(options, step, 275600, 3 * 689) for step in (0, 689, 2066)]
    assert rates == pytest.approx([4e-5, 2.80e-4, 1e-3], rel=2e-3)


@pytest.mark.parametrize("name", ["one_cycle", "cosine", "step", "linear"])
@pytest.mark.parametrize("warmup", [12.0, 40.0])
def test_a_warm_up_as_long_as_the_run_only_rises(name: str, warmup: float):
    options = ScheduleOptions(name=name)  # type: ignore[arg-type]
    factors = [rate_factor(options, step, 12, warmup) for step in range(12)]
    assert factors == sorted(factors) and factors[-1] == 1.0


@pytest.mark.parametrize("name", ["one_cycle", "cosine", "step", "linear"])
def test_without_warm_up_the_first_step_has_the_full_rate(name: str):
    assert rate_factor(ScheduleOptions(name=name), 0, 10, 0) == 1.0  # type: ignore[arg-type]


def test_linear_falls_in_equal_steps_to_its_final_part():
    options = ScheduleOptions(name="linear", final_fraction=0.1)
    factors = [rate_factor(options, step, 10, 0) for step in range(10)]
    assert factors == pytest.approx([1 - 0.1 * step for step in range(10)])


def test_cosine_is_half_way_down_in_the_middle():
    options = ScheduleOptions(name="cosine", final_fraction=0.0)
    assert rate_factor(options, 5, 11, 0) == pytest.approx(0.5)
    assert rate_factor(options, 10, 11, 0) == pytest.approx(0.0)


def test_step_multiplies_at_each_milestone():
    options = ScheduleOptions(name="step", milestones=(0.5, 0.8), gamma=0.1)
    factors = [rate_factor(options, step, 10, 0) for step in range(10)]
    assert factors == pytest.approx([1] * 5 + [0.1] * 3 + [0.01] * 2)


def test_milestones_above_one_are_steps():
    options = ScheduleOptions(name="step", milestones=(5, 0.8), gamma=0.1)
    factors = [rate_factor(options, step, 10, 0) for step in range(10)]
    assert factors == pytest.approx([1] * 5 + [0.1] * 3 + [0.01] * 2)


def test_the_schedule_of_atss_starts_at_a_third_for_500_steps():
    options = ScheduleOptions("step", "constant", start_fraction=1 / 3, milestones=(60_000, 80_000))
    wanted = {0: 1 / 3, 499: 1 / 3, 500: 1, 59_999: 1, 60_000: 0.1, 79_999: 0.1, 80_000: 0.01, 89_999: 0.01}
    rates = {step: rate_factor(options, step, 90_000, 500) for step in wanted}
    assert rates == pytest.approx(wanted)


def test_the_schedule_of_dw_rises_in_equal_steps_from_a_thousandth():
    options = ScheduleOptions("step", start_fraction=0.001, milestones=(8 / 12, 11 / 12))
    rates = [rate_factor(options, step, 12_000, 1000) for step in (0, 500, 999, 7999, 8000, 11_000)]
    assert rates == pytest.approx([0.001, 0.5, 1, 1, 0.1, 0.01], abs=2e-3)


def test_a_constant_warm_up_as_long_as_the_run_never_ends():
    options = ScheduleOptions("cosine", "constant", start_fraction=0.5)
    assert [rate_factor(options, step, 4, 9) for step in range(4)] == [0.5] * 4


def test_steps_past_the_end_keep_the_last_rate():
    options = ScheduleOptions(name="linear", final_fraction=0.2)
    assert rate_factor(options, 99, 10, 0) == pytest.approx(0.2)


def test_momentum_is_left_alone_unless_asked():
    assert momentum(ScheduleOptions(cycle_momentum=False), 3, 10, 2) is None
    assert momentum(ScheduleOptions(name="cosine"), 3, 10, 2) is None
    one = optimizer(momentum=0.9)
    StepSchedule(one, ScheduleOptions(cycle_momentum=False), 10, 2)
    assert one.param_groups[0]["momentum"] == 0.9


def test_a_loaded_schedule_continues_at_its_step():
    first, second = optimizer(momentum=0.9), optimizer(momentum=0.9)
    options = ScheduleOptions()
    whole, resumed = StepSchedule(first, options, 20, 4), StepSchedule(second, options, 20, 4)
    for _ in range(7):
        first.step()
        whole.step()
    resumed.load_state_dict(whole.state_dict())
    for _ in range(5):
        for each, schedule in ((first, whole), (second, resumed)):
            each.step()
            schedule.step()
        assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "cosin"}, "name"),
        ({"warmup_epochs": -1}, "schedule.warmup_epochs: expected 0 or more"),
        ({"start_fraction": 0}, "schedule.start_fraction"),
        ({"final_fraction": 2}, "schedule.final_fraction"),
        ({"min_momentum": 0.99}, "0 <= min <= max < 1"),
        ({"milestones": (0.5, 1.5)}, "schedule.milestones"),
        ({"milestones": (0.5, 1.0)}, "schedule.milestones"),
        ({"gamma": 0}, "schedule.gamma"),
        ({"name": "step", "warmup": "constant", "warmup_steps": -1}, "schedule.warmup_steps"),
        ({"name": "one_cycle", "warmup": "constant"}, "linear for one_cycle"),
    ],
)
def test_values_that_make_no_schedule_are_refused(options: dict[str, object], message: str):
    with pytest.raises((ValueError, TypeCheckError), match=message):
        ScheduleOptions(**options)  # type: ignore[arg-type]
