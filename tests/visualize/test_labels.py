"""Frames, captions and colours."""

import numpy as np
import pytest
from pictures import count_color, grey

from boxmatch.visualize.labels import Mark, draw_marks
from boxmatch.visualize.palette import ALARM, color, text_color


def test_first_colors_differ_and_none_is_the_alarm_color():
    colors = [color(index) for index in range(60)]
    assert len(set(colors)) == 60
    assert all(np.abs(np.array(shade) - np.array(ALARM)).sum() > 60 for shade in colors)


def test_letters_are_black_on_light_and_white_on_dark_ground():
    assert text_color((240, 228, 66)) == (0, 0, 0)
    assert text_color((0, 50, 120)) == (255, 255, 255)


@pytest.mark.parametrize("box", [(0, 0, 20, 20), (380, 280, 400, 300), (0, 0, 400, 300), (390, 0, 500, 10)])
def test_a_caption_lies_whole_inside_the_picture(box):
    marked = draw_marks(grey(400, 300), [Mark(box, "platelets 0.87", (0, 158, 115))])
    alone = draw_marks(grey(400, 300), [Mark((150, 150, 250, 250), "platelets 0.87", (0, 158, 115))])
    letters = count_color(alone, (255, 255, 255))
    assert letters > 30
    assert count_color(marked, (255, 255, 255)) == letters


def test_captions_of_near_boxes_do_not_cover_each_other():
    marks = [Mark((100 + 4 * n, 100 + 4 * n, 200, 200), f"cell 0.8{n}", (0, 114, 178)) for n in range(4)]
    one = count_color(draw_marks(grey(400, 300), marks[:1]), (255, 255, 255))
    assert count_color(draw_marks(grey(400, 300), marks), (255, 255, 255)) > 3.5 * one


def test_a_caption_longer_than_the_picture_is_cut_with_an_ellipsis_and_stays_inside():
    marked = draw_marks(
        grey(60, 60), [Mark((5, 5, 40, 40), "a name that is much too long 0.50", (0, 114, 178))]
    )
    assert marked.size == (60, 60)
    assert count_color(marked, (0, 114, 178)) > 200


def test_a_hatched_mark_has_lines_inside_its_frame_and_none_outside():
    marked = np.asarray(
        draw_marks(grey(400, 300), [Mark((100, 100, 300, 200), "", (0, 114, 178), hatched=True)])
    )
    lines = (marked == np.array((0, 114, 178))).all(-1)
    assert 0.05 < lines[105:195, 105:295].mean() < 0.3
    assert lines[:98].sum() == lines[203:].sum() == lines[:, :98].sum() == lines[:, 303:].sum() == 0
