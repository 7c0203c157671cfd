"""Orders, shares of the processes, sizes, and starts in the middle of an epoch."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxmatch.data.sampler import EvaluationSampler, TrainSampler, sides_between, with_longer_side

SIZE = (96, 96)


def order(sampler: TrainSampler | EvaluationSampler) -> list[int]:
    return [index for key in sampler for index in key.indices]


def trained(count: int = 40, batch_size: int = 4, **options) -> TrainSampler:
    return TrainSampler(count, batch_size, image_size=SIZE, **options)


def test_an_epoch_shows_every_picture_once_in_random_order():
    first = order(trained())
    assert sorted(first) == list(range(40))
    assert first != sorted(first)


def test_the_order_follows_from_seed_and_epoch():
    assert order(trained(seed=1)) == order(trained(seed=1))
    assert order(trained(seed=1)) != order(trained(seed=2))
    one = trained()
    first = order(one)
    one.set_epoch(1)
    assert order(one) != first
    one.set_epoch(0)
    assert order(one) == first


def test_pictures_that_fill_no_batch_are_left_out_or_filled_up():
    assert len(trained(10)) == len(list(trained(10))) == 2
    kept = order(trained(10, drop_last=False))
    assert len(kept) == 12 and set(kept) == set(range(10))
    assert kept[10:] == kept[:2]


def test_a_set_smaller_than_a_batch_is_one_batch():
    for world in (1, 2):
        shown = [order(trained(3, rank=rank, world=world)) for rank in range(world)]
        assert [len(indices) for indices in shown] == [4] * world
        assert {index for indices in shown for index in indices} == {0, 1, 2}


@settings(deadline=None)  # wall time, which other programs lengthen
@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 4), st.booleans())
def test_all_processes_take_equally_many_steps_and_share_no_picture(count, batch_size, world, drop_last):
    options = {"drop_last": drop_last, "world": world}
    samplers = [trained(count, batch_size, rank=rank, **options) for rank in range(world)]
    shown = [order(sampler) for sampler in samplers]
    assert {len(indices) for indices in shown} == {len(samplers[0]) * batch_size}
    together = [index for indices in shown for index in indices]
    if drop_last and count >= batch_size * world:
        assert len(set(together)) == len(together)
    if not drop_last:
        assert set(together) == set(range(count))


def test_a_joined_batch_of_two_processes_is_the_batch_of_one():
    one = list(trained(40, 8))
    halves = zip(trained(40, 4, rank=0, world=2), trained(40, 4, rank=1, world=2), strict=True)
    for whole, (left, right) in zip(one, halves, strict=True):
        assert set(whole.indices) == set(left.indices) | set(right.indices)


@pytest.mark.parametrize("start", [0, 1, 7, 10])
def test_a_start_in_the_middle_goes_on_as_if_never_stopped(start):
    whole = list(trained(multi_scale=(64, 256)))
    late = trained(multi_scale=(64, 256))
    late.start_batch = start
    assert list(late) == whole[start:]
    assert list(late) == whole  # only once
    assert len(late) == 10


def test_a_start_in_the_middle_holds_for_its_epoch_only():
    sampler = trained()
    sampler.start_batch = 3
    sampler.set_epoch(0)
    assert len(list(sampler)) == 7
    sampler.start_batch = 3
    sampler.set_epoch(1)
    assert len(list(sampler)) == 10


def test_sizes_are_multiples_of_32_in_the_range_and_all_of_them_occur():
    keys = list(trained(400, multi_scale=(70, 200)))
    assert {key.size for key in keys} == {(side, side) for side in (96, 128, 160, 192)}


def test_all_processes_draw_the_same_sizes():
    drawn = [[key.size for key in trained(80, rank=rank, world=2, multi_scale=(64, 320))] for rank in (0, 1)]
    assert drawn[0] == drawn[1]


def test_a_size_stays_for_the_interval():
    sizes = [key.size for key in trained(120, multi_scale=(32, 320), multi_scale_interval=5)]
    assert [len(set(sizes[start : start + 5])) for start in range(0, 30, 5)] == [1] * 6
    assert len(set(sizes)) > 1


def test_the_epoch_and_the_usual_size_are_in_the_keys():
    sampler = trained()
    sampler.set_epoch(6)
    assert {(key.epoch, key.size) for key in sampler} == {(6, SIZE)}


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 5))
def test_evaluation_shows_every_picture_once_over_all_processes(count, batch_size, world):
    samplers = [EvaluationSampler(count, batch_size, rank=rank, world=world) for rank in range(world)]
    batches = [list(sampler) for sampler in samplers]
    assert {len(one) for one in batches} == {len(samplers[0])}
    assert all(1 <= len(key.indices) <= batch_size for one in batches for key in one)
    shown = [index for sampler in samplers for index in order(sampler)]
    assert set(shown) == set(range(count))
    if count >= world and batch_size > 1:
        assert len(shown) == count


def test_evaluation_keeps_the_order_of_the_set():
    assert order(EvaluationSampler(7, 3)) == list(range(7))
    assert [len(key.indices) for key in EvaluationSampler(7, 3)] == [3, 2, 2]


def test_evaluation_may_start_late_too():
    sampler = EvaluationSampler(7, 3)
    sampler.start_batch = 2
    assert order(sampler) == [5, 6]


def test_sides_that_follow_other_proportions_stay_multiples_of_32():
    assert with_longer_side((640, 384), 320) == (320, 192)
    assert with_longer_side((320, 320), 480) == (480, 480)
    assert with_longer_side((640, 32), 64) == (64, 32)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"count": 0}, "no pictures"),
        ({"batch_size": 0}, "batch size"),
        ({"multi_scale": (33, 63)}, "multiple of 32"),
        ({"multi_scale_interval": 0}, "multi_scale_interval"),
        ({"groups": np.zeros(3, np.int64)}, "groups"),
    ],
)
def test_impossible_options_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        trained(**arguments)


def test_sides_include_both_ends():
    assert sides_between(64, 128) == [64, 96, 128]


def test_keys_are_made_one_at_a_time():
    sampler = trained()
    first = list(islice(sampler, 2))
    assert first == list(sampler)[:2]


def grouped(count: int, batch_size: int, **options) -> TrainSampler:
    """Every third picture is of another group."""
    return trained(count, batch_size, groups=(np.arange(count) % 3 == 0).astype(np.int64), **options)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 4), st.booleans())
def test_groups_share_no_batch_and_no_process_is_short_of_one(count, batch_size, world, drop_last):
    options = {"drop_last": drop_last, "world": world}
    keys = [list(grouped(count, batch_size, rank=rank, **options)) for rank in range(world)]
    assert {len(one) for one in keys} == {len(grouped(count, batch_size, rank=0, **options))}
    for together in zip(*keys, strict=True):
        assert len({index % 3 == 0 for key in together for index in key.indices}) == 1
        assert {len(key.indices) for key in together} == {batch_size}
    shown = [index for one in keys for key in one for index in key.indices]
    if not drop_last:
        assert set(shown) == set(range(count))
    elif count // 3 >= batch_size * world:
        assert len(set(shown)) == len(shown) > count - 2 * batch_size * world


def test_batches_of_groups_come_in_random_order_that_follows_from_seed_and_epoch():
    first = list(grouped(60, 4))
    kinds = [key.indices[0] % 3 == 0 for key in first]
    assert kinds != sorted(kinds) and kinds != sorted(kinds, reverse=True)
    late = grouped(60, 4)
    late.start_batch = 6
    assert list(late) == first[6:]
    late.set_epoch(1)
    assert [key.indices for key in late] != [key.indices for key in first]
