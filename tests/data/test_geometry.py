"""Placing, drawing, turning and warping of pictures and boxes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxmatch.data.geometry import (
    Placement,
    draw,
    fitted_size,
    letterbox,
    turned,
    turned_boxes,
    turned_size,
    warp_boxes,
    warp_pixels,
)

BOX = np.array([[3, 5, 9, 7]], np.float32)


def picture_with(box: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    pixels = torch.zeros((size[1], size[0], 3), dtype=torch.uint8)
    left, top, right, bottom = box[0].astype(int)
    pixels[top:bottom, left:right] = 255
    return pixels


def box_of(pixels: torch.Tensor) -> np.ndarray:
    rows, columns = torch.nonzero(pixels[..., 0] > 127, as_tuple=True)
    return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)


@pytest.mark.parametrize(
    ("picture", "output", "expected"),
    [
        ((640, 480), (320, 320), (320, 240)),
        ((480, 640), (320, 320), (240, 320)),
        ((640, 480), (320, 160), (213, 160)),
        ((10, 5), (320, 320), (320, 160)),
        ((1000, 1), (320, 320), (320, 1)),
    ],
)
def test_a_picture_is_scaled_until_one_side_fits(picture, output, expected):
    assert fitted_size(picture, output) == expected


def test_a_letterboxed_picture_lies_in_the_middle():
    assert letterbox(0, (640, 480), (320, 320)).placements[0].edges == (0, 40, 320, 280)


def test_a_whole_picture_drawn_at_its_own_size_keeps_its_pixels():
    pixels = torch.randint(0, 255, (8, 12, 3), dtype=torch.uint8)
    canvas = torch.zeros((10, 20, 3), dtype=torch.uint8)
    way = draw(canvas, pixels, Placement(0, (5, 1, 17, 9)))
    assert torch.equal(canvas[1:9, 5:17], pixels)
    assert (way.scale, way.offset) == ((1, 1), (5, 1))


def test_a_picture_that_does_not_show_cannot_be_drawn():
    placement = Placement(3, (20, 0, 30, 10))
    assert placement.visible((20, 20)) is None
    with pytest.raises(ValueError, match="picture 3"):
        draw(
            torch.zeros((20, 20, 3), dtype=torch.uint8), torch.zeros((4, 4, 3), dtype=torch.uint8), placement
        )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-90, 60), st.integers(-90, 60), st.integers(20, 200), st.integers(20, 200), st.integers(0, 3)
)
def test_the_map_that_drawing_returns_is_the_one_of_the_pixels(left, top, width, height, turns):
    box = np.array([[20, 12, 44, 36]], np.float32)
    pixels = picture_with(box, (64, 48))
    placement = Placement(0, (left, top, left + width, top + height), turns)
    canvas = torch.zeros((64, 64, 3), dtype=torch.uint8)
    if placement.visible((64, 64)) is None:
        return
    way = draw(canvas, pixels, placement)
    expected = way(turned_boxes(box, (64, 48), turns))
    visible = np.clip(expected, 0, 64)
    if (visible[:, 2:] - visible[:, :2]).min() < 3:
        return
    assert np.abs(box_of(canvas) - visible).max() <= 1.0


def test_a_strip_narrower_than_a_source_pixel_is_still_drawn():
    canvas = torch.zeros((32, 32, 3), dtype=torch.uint8)
    draw(canvas, torch.full((4, 4, 3), 200, dtype=torch.uint8), Placement(0, (31, 0, 351, 320)))
    assert (canvas[:, 31] == 200).all()
    assert (canvas[:, :31] == 0).all()


@pytest.mark.parametrize("turns", range(5))
def test_boxes_turn_with_their_picture(turns):
    pixels = turned(picture_with(BOX, (16, 12)), turns)
    assert tuple(pixels.shape[1::-1]) == turned_size((16, 12), turns)
    np.testing.assert_array_equal(box_of(pixels), turned_boxes(BOX, (16, 12), turns))


def test_boxes_warp_with_their_picture():
    box = np.array([[30, 20, 70, 60]], np.float32)
    warp = np.array([[1.1, 0.2, -8], [-0.1, 0.9, 12], [0.0005, 0.001, 1]])
    seen = warp_pixels(picture_with(box, (100, 80)), warp, (110, 90), fill=0)
    assert np.abs(box_of(seen) - warp_boxes(box, warp)).max() <= 1.5


def test_pixels_beyond_a_warped_picture_have_the_fill_value():
    shift = np.array([[1, 0, 4], [0, 1, 0], [0, 0, 1.0]])
    seen = warp_pixels(torch.full((8, 8, 3), 200, dtype=torch.uint8), shift, (8, 8), fill=7)
    assert (seen[:, :4] == 7).all()
    assert (seen[:, 5:] == 200).all()


def test_no_boxes_stay_no_boxes():
    none = np.zeros((0, 4), np.float32)
    assert turned_boxes(none, (8, 8), 1).shape == (0, 4)
    assert warp_boxes(none, np.eye(3)).shape == (0, 4)
