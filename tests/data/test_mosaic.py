"""Layouts: which pictures lie where, in the shares and ranges that the options say."""

from collections.abc import Sequence

import numpy as np
import pytest

from boxmatch.data.geometry import Layout
from boxmatch.data.mosaic import homography, other_pictures, random_layout, rotation
from boxmatch.data.transforms import Augment

PLAIN = Augment(randscale_p=0)
OUTPUT = (320, 320)


def layouts(
    options: Augment, count: int = 10, draws: int = 400, size=(640, 480), output=OUTPUT
) -> Sequence[Layout]:
    return [
        random_layout(number % count, count, lambda _: size, output, options, np.random.default_rng(number))
        for number in range(draws)
    ]


def widths(drawn: Sequence[Layout]) -> np.ndarray:
    return np.array([one.placements[0].edges[2] - one.placements[0].edges[0] for one in drawn])


def test_a_mosaic_starts_with_its_own_picture_and_adds_three_others():
    for number, layout in enumerate(layouts(PLAIN, draws=50)):
        pictures = [placement.picture for placement in layout.placements]
        assert pictures[0] == number % 10
        assert len(set(pictures)) == 4


def test_every_other_picture_is_drawn_about_equally_often():
    drawn = [p for n in range(3000) for p in other_pictures(4, 10, np.random.default_rng(n))]
    counts = np.bincount(drawn, minlength=10)
    assert counts[4] == 0
    assert np.abs(np.delete(counts, 4) - 1000).max() < 120


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_mosaic_of_fewer_than_four_pictures_repeats_them(count):
    for layout in layouts(PLAIN, count=count, draws=20):
        assert len(layout.placements) == 4
        assert {placement.picture for placement in layout.placements} <= set(range(count))


def test_four_pictures_touch_one_point_in_reading_order():
    for layout in layouts(PLAIN, draws=30):
        top_left, top_right, bottom_left, bottom_right = (placement.edges for placement in layout.placements)
        x, y = top_left[2], top_left[3]
        assert top_right == (x, y - 240, x + 320, y)
        assert bottom_left == (x - 320, y, x, y + 240)
        assert bottom_right == (x, y, x + 320, y + 240)
        assert 0 <= x <= 320 and 0 <= y <= 320


def test_the_crop_is_spread_evenly_over_the_canvas():
    seams = np.array([layout.placements[0].edges[2:] for layout in layouts(PLAIN, draws=1200)])
    assert seams.min() <= 1 and seams.max() >= 319
    assert np.abs(seams.mean(0) - 160).max() < 10


def test_half_of_the_canvases_are_scaled_evenly_between_half_and_double():
    factors = widths(layouts(Augment(), draws=1200)) / 320
    scaled = factors[factors != 1]
    assert 0.45 < len(scaled) / 1200 < 0.55
    assert 0.5 <= scaled.min() < 0.53 and 1.96 < scaled.max() <= 2
    assert abs(scaled.mean() - 1.25) < 0.05


def test_the_crop_never_leaves_the_canvas():
    for layout in layouts(Augment()):  # pictures of 4:3 fill the whole width of the canvas
        assert layout.placements[0].edges[0] <= 0
        assert layout.placements[3].edges[2] >= 320


def test_without_mosaic_a_small_picture_is_padded_evenly():
    single = Augment(mosaic_p=0, randscale=(-0.5, -0.5), randscale_p=1)
    for layout in layouts(single, draws=5):
        assert [placement.edges for placement in layout.placements] == [(80, 100, 240, 220)]


def test_the_schedule_switches_mosaic_off():
    layout = random_layout(2, 9, lambda _: (64, 48), OUTPUT, PLAIN, np.random.default_rng(0), mosaic=False)
    assert [placement.picture for placement in layout.placements] == [2]


def test_mosaic_probability_is_a_share_of_the_samples():
    drawn = layouts(Augment(mosaic_p=0.3), draws=1000)
    assert 0.25 < np.mean([len(layout.placements) == 4 for layout in drawn]) < 0.35


def test_jitter_moves_the_point_where_the_pictures_meet():
    options = Augment(randscale_p=0, mosaic_jitter=0.5)
    seams = np.array([layout.placements[0].edges[2] for layout in layouts(options, draws=1000)])
    assert seams.min() < -100 and seams.max() > 420


def test_quarter_turns_swap_the_sides_of_a_picture():
    drawn = [
        p for layout in layouts(Augment(randscale_p=0, rot90_p=0.6), draws=200) for p in layout.placements
    ]
    assert {placement.quarter_turns for placement in drawn} == {0, 1, 2, 3}
    for placement in drawn:
        size = (placement.edges[2] - placement.edges[0], placement.edges[3] - placement.edges[1])
        assert size == ((240, 320) if placement.quarter_turns % 2 else (320, 240))


@pytest.mark.parametrize(
    "options", [Augment(rotate_p=1), Augment(perspective_p=1), Augment(rotate_p=1, perspective_p=1)]
)
def test_a_warped_layout_renders_no_more_than_the_canvas(options):
    for layout in layouts(options, draws=50):
        assert layout.warp is not None
        assert max(layout.window) <= 4 * 320
        assert layout.output == OUTPUT


def test_rotation_turns_counter_clockwise_about_the_centre():
    turn = rotation((100, 60), 90)
    np.testing.assert_allclose(turn @ [50, 30, 1], [50, 30, 1], atol=1e-9)
    np.testing.assert_allclose(turn @ [60, 30, 1], [50, 20, 1], atol=1e-9)


def test_a_homography_takes_each_corner_to_its_target():
    source = np.array([[0, 0], [10, 1], [9, 8], [-1, 7]], float)
    target = np.array([[0, 0], [20, 0], [20, 10], [0, 10]], float)
    mapped = np.concatenate([source, np.ones((4, 1))], 1) @ homography(source, target).T
    np.testing.assert_allclose(mapped[:, :2] / mapped[:, 2:], target, atol=1e-9)


def test_a_layout_depends_on_the_random_stream_alone():
    def first(seed: int) -> Layout:
        return random_layout(0, 9, lambda _: (64, 48), OUTPUT, Augment(), np.random.default_rng(seed))

    assert first(3) == first(3)
    assert first(3) != first(4)
