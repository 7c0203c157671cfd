"""Colours, visible boxes, and the limits of the options."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from boxmatch.data.transforms import Augment, hue_matrix, jitter_colors, keep_visible

IMAGE = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


@pytest.mark.parametrize("place, name", list(enumerate(("brightness", "contrast", "saturation"))))
@pytest.mark.parametrize("seed", range(5))
def test_each_colour_change_equals_the_one_of_torchvision(place, name, seed):
    changed = jitter_colors(IMAGE, Augment(**{**STILL, name: 0.4}), np.random.default_rng(seed))
    stream = np.random.default_rng(seed)
    amounts = [stream.uniform(1 - s, 1 + s) for s in np.eye(3)[place] * 0.4]
    expected = getattr(reference, f"adjust_{name}")(IMAGE, amounts[place])
    assert (changed.int() - expected.int()).abs().max() <= 2  # torchvision cuts decimals off in between


def test_the_amount_of_a_change_stays_in_its_range():
    flat = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    only = Augment(**{**STILL, "brightness": 0.5})
    stream = np.random.default_rng(0)
    values = [int(jitter_colors(flat, only, stream)[0, 0, 0]) for _ in range(400)]
    assert 50 <= min(values) < 55 and 145 < max(values) <= 150
    assert abs(np.mean(values) - 100) < 5


def test_without_any_strength_nothing_changes():
    assert torch.equal(jitter_colors(IMAGE, Augment(**STILL), np.random.default_rng(0)), IMAGE)


def test_no_saturation_is_grey():
    options = Augment(**{**STILL, "saturation": 1.0})
    stream = next(s for s in range(1000) if np.random.default_rng(s).uniform(0, 2, 3)[2] < 0.004)
    grey = jitter_colors(IMAGE, options, np.random.default_rng(stream)).int()
    assert (grey.amax(0) - grey.amin(0)).max() <= 2


def test_turning_the_hue_keeps_grey_pixels_and_the_luma():
    matrix = hue_matrix(0.2)
    torch.testing.assert_close(matrix @ torch.ones(3), torch.ones(3), atol=2e-3, rtol=0)
    luma = torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(luma @ matrix, luma, atol=2e-3, rtol=0)


def test_a_full_turn_of_the_hue_is_none():
    torch.testing.assert_close(hue_matrix(1.0), torch.eye(3), atol=1e-5, rtol=0)


def test_a_third_of_a_turn_makes_red_another_colour():
    red = torch.zeros((3, 4, 4), dtype=torch.uint8)
    red[0] = 200
    options = Augment(**STILL, hue=0.5)
    turned = [jitter_colors(red, options, np.random.default_rng(n)).float().mean((1, 2)) for n in range(20)]
    assert {int(color.argmax()) for color in turned} == {0, 1, 2}


def test_boxes_are_clipped_and_those_too_small_are_marked():
    boxes = np.array(
        [
            [10, 10, 20, 20],  # inside
            [-50, 0, 50, 10],  # half of it is left
            [-999, 0, 1, 10],  # one part in a thousand is left
            [120, 10, 140, 20],  # outside
            [0, 0, 3, 3],  # nine square pixels
            [40, 40, 40, 60],  # no extent
        ],
        np.float32,
    )
    clipped, keep = keep_visible(boxes, (100, 80), min_area=10, min_visibility=0.01)
    assert keep.tolist() == [True, True, False, False, False, False]
    np.testing.assert_array_equal(clipped[:2], [[10, 10, 20, 20], [0, 0, 50, 10]])


def test_boxes_at_the_limits_remain():
    boxes = np.array([[0, 0, 2, 5], [-99, 0, 1, 10]], np.float32)
    _, keep = keep_visible(boxes, (100, 80), min_area=10, min_visibility=0.01)
    assert keep.tolist() == [True, True]


def test_no_boxes_give_no_boxes():
    clipped, keep = keep_visible(np.zeros((0, 4), np.float32), (10, 10), 1.0, 0.1)
    assert clipped.shape == (0, 4) and keep.shape == (0,)


@pytest.mark.parametrize(
    "option, value",
    [
        ("mosaic_p", 1.5),
        ("h_flip", -0.1),
        ("min_visibility", 2),
        ("brightness", 1.2),
        ("hue", 0.6),
        ("randscale", (1.0, 0.5)),
        ("randscale", (-1.0, 0.5)),
        ("perspective", (0.1, 0.6)),
        ("rotate", (10, -10)),
        ("mosaic_jitter", 1.0),
        ("close_mosaic_epochs", -1),
    ],
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(ValueError, match=f"augment.{option}"):
        Augment(**{option: value})


def test_the_defaults_are_the_published_table():
    table = Augment()
    assert (table.mosaic_p, table.randscale, table.randscale_p) == (1.0, (-0.5, 1.0), 0.5)
    assert (table.perspective, table.perspective_p, table.rotate, table.rotate_p) == (
        (0.05, 0.1),
        0,
        (-90, 90),
        0,
    )
    assert (table.brightness, table.contrast, table.saturation, table.hue, table.color_p) == (
        0.5,
        0.5,
        0.5,
        0,
        0.5,
    )
    assert (table.h_flip, table.v_flip, table.rot90_p, table.mosaic_jitter) == (0.5, 0, 0, 0)
    assert (table.min_visibility, table.close_mosaic_epochs) == (0.01, 0)
