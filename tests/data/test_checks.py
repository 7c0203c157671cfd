"""What each check finds in flat arrays, and what each policy does about it."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from boxmatch.data.annotations import Annotations, from_columns
from boxmatch.data.checks import check_boxes, check_classes, check_duplicates, check_pictures, duplicates
from boxmatch.data.problems import KEPT_PER_KIND, CheckPolicy, ProblemLog

NAN, INF = float("nan"), float("inf")


def one_picture(boxes, size=(100, 50), labels=None, kind="object", root="."):
    return from_columns(
        Path(root),
        names=["a.png"],
        sizes=np.array([size]),
        image_of_box=np.zeros(len(boxes), dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.zeros(len(boxes)) if labels is None else np.array(labels),
        ignore=np.zeros(len(boxes), dtype=bool),
        object_ids=np.arange(1, len(boxes) + 1),
        class_names=("cat", "dog"),
        object_kind=kind,
    )


def check(boxes, size=(100, 50), **actions):
    log = ProblemLog()
    checked = check_boxes(one_picture(boxes, size), log, policy=CheckPolicy(**actions))
    return checked, [(problem.kind, problem.object) for problem in log.problems]


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ([0, 0, 100, 50], None),
        ([10, 10, 12, 12], None),
        ([10, 10, 11, 40], None),  # one pixel wide and long: a pole, not a click
        ([10, 10, 11, 11.5], None),
        ([10, 10, 11, 11], "zero_size"),
        ([10, 10, 11.005, 11.005], "zero_size"),  # a pixel after six digits
        ([10, 10, 10.5, 10.5], "zero_size"),
        ([10, 10, 10, 40], "zero_size"),
        ([10, 10, 40, 10], "zero_size"),
        ([10, 10, 10, 10], "zero_size"),
        ([10, 10, 9, 40], "inverted"),
        ([10, 10, 40, 9.5], "inverted"),
        ([40, 40, 10, 10], "inverted"),
        ([NAN, 10, 40, 40], "non_finite"),
        ([10, 10, INF, 40], "non_finite"),
        ([-INF, 10, 40, 40], "non_finite"),
        ([NAN, NAN, NAN, NAN], "non_finite"),
        ([-0.9, 0, 10, 10], None),  # rounding
        ([-1, 0, 10, 10], "outside"),
        ([90, 40, 100.9, 50.9], None),
        ([90, 40, 101, 50], "outside"),
        ([90, 40, 100, 51], "outside"),
        ([200, 10, 220, 30], "outside"),
        ([-30, 10, -20, 30], "outside"),
        ([-1e30, -1e30, 1e30, 1e30], "outside"),
    ],
)
def test_each_fault_has_one_kind(box, kind):
    checked, found = check([[5, 5, 20, 20], box])
    assert found == ([(kind, "object 2")] if kind else [])
    assert checked.boxes[0].tolist() == [5, 5, 20, 20]


def test_bad_boxes_are_left_out_and_boxes_outside_are_cut_by_default():
    checked, found = check([[1, 1, 1, 9], [9, 9, 1, 1], [NAN, 1, 2, 3], [-5, -5, 20, 20], [200, 1, 210, 9]])
    assert checked.boxes.tolist() == [[0, 0, 20, 20]]
    assert len(found) == 5


def test_rounding_is_cut_without_a_word():
    checked, found = check([[-0.5, -0.25, 100.5, 50.75]])
    assert (checked.boxes.tolist(), found) == ([[0, 0, 100, 50]], [])


def test_boxes_outside_are_dropped_when_the_policy_says_so():
    checked, _ = check([[-5, 5, 20, 20], [5, 5, 20, 20]], outside="drop")
    assert checked.boxes.tolist() == [[5, 5, 20, 20]]


def test_areas_follow_the_cut_except_where_the_file_has_its_own():
    boxes = [[-5, 0, 5, 10]]
    own = check_boxes(one_picture(boxes, kind="annotation"), ProblemLog(), policy=CheckPolicy())
    derived = check_boxes(one_picture(boxes), ProblemLog(), policy=CheckPolicy())
    assert (own.areas.tolist(), derived.areas.tolist()) == ([100], [50])


def test_without_a_size_only_the_near_borders_count():
    checked, found = check([[-5, 5, 20, 20], [500, 5, 600, 20]], size=(-1, -1))
    assert checked.boxes.tolist() == [[0, 5, 20, 20], [500, 5, 600, 20]]
    assert found == [("outside", "object 1")]


def test_a_picture_without_boxes_is_no_problem():
    checked, found = check([])
    assert (len(checked), checked.boxes.shape, found) == (1, (0, 4), [])


coordinates = st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0, 50.0, 100.0, 101.0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates), max_size=8))
def test_whatever_goes_in_finite_boxes_with_extent_inside_come_out(boxes):
    checked, _ = check(boxes)
    assert np.isfinite(checked.boxes).all()
    assert (checked.boxes[:, 2:] > checked.boxes[:, :2]).all()
    assert (checked.boxes >= 0).all() and (checked.boxes <= [100, 50, 100, 50]).all()
    assert checked.offsets[-1] == len(checked.boxes) == len(checked.labels)


def test_problems_name_picture_object_and_values():
    log = ProblemLog(split="val")
    check_boxes(one_picture([[5, 5, 20, 20], [1, 2, 1.5, 2.5]]), log, policy=CheckPolicy())
    problem = log.problems[0]
    assert (problem.split, problem.file, problem.object, problem.box) == (
        "val",
        "a.png",
        "object 2",
        (1, 2, 1.5, 2.5),
    )
    assert "a.png, object 2" in str(problem) and "[box 1, 2, 1.5, 2.5]" in str(problem)


def test_a_million_problems_are_counted_and_the_first_thousand_kept():
    log = ProblemLog()
    check_boxes(one_picture(np.zeros((50_000, 4))), log, policy=CheckPolicy())
    assert len(log.problems) == KEPT_PER_KIND
    assert sum(log.counts.values()) == 50_000


def test_unknown_classes_are_left_out_with_the_nearest_name():
    log = ProblemLog()
    annotations = one_picture([[1, 1, 9, 9], [2, 2, 9, 9]], labels=[0, 1])
    checked = check_classes(annotations, ("Cat", "dog"), log)
    assert (checked.class_names, checked.labels.tolist()) == (("Cat", "dog"), [1])
    assert "did you mean 'Cat'?" in log.problems[0].message


def test_a_class_far_from_all_names_gets_the_list():
    log = ProblemLog()
    check_classes(one_picture([[1, 1, 9, 9]]), ("zebra",), log)
    assert "['zebra']" in log.problems[0].message


def test_equal_boxes_of_one_class_in_one_picture_are_duplicates():
    box, other = [1, 1, 9, 9], [1, 1, 9, 8]
    annotations = one_picture([box, other, box, box, box], labels=[0, 0, 0, 1, 0])
    assert duplicates(annotations).tolist() == [False, False, True, False, True]


def test_duplicates_are_noted_and_dropped_only_when_asked():
    annotations = one_picture([[1, 1, 9, 9]] * 3)
    kept = check_duplicates(annotations, log := ProblemLog(), policy=CheckPolicy())
    dropped = check_duplicates(annotations, ProblemLog(), policy=CheckPolicy(duplicate_box="drop"))
    assert (len(kept.boxes), len(dropped.boxes), len(log.problems)) == (3, 1, 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_duplicates_agree_with_a_set_of_what_was_seen(seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(0, 60))
    annotations = from_columns(
        Path(),
        names=["a", "b", "c"],
        sizes=np.full((3, 2), 9),
        image_of_box=np.sort(random.integers(0, 3, count)),
        boxes=random.integers(0, 2, (count, 4)).astype(np.float32),
        labels=random.integers(0, 2, count),
        ignore=np.zeros(count, dtype=bool),
        object_ids=np.arange(count),
        class_names=("cat", "dog"),
    )
    seen: set[tuple[float, ...]] = set()
    expected = []
    for image, label, box in zip(annotations.image_index(), annotations.labels, annotations.boxes.tolist()):
        expected.append((image, label, *box) in seen)
        seen.add((image, label, *box))
    assert duplicates(annotations).tolist() == expected


def test_annotation_ids_that_appear_twice_are_noted():
    annotations = one_picture([[1, 1, 9, 9], [2, 2, 9, 9]], kind="annotation")
    annotations.object_ids[:] = 5
    check_duplicates(annotations, log := ProblemLog(), policy=CheckPolicy())
    assert [problem.kind for problem in log.problems] == ["duplicate_object_id"]


def pictures(folder: Path, size=(100, 50), orientation: int | None = None, count: int = 1) -> Annotations:
    exif = Image.Exif()
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    names = [f"{number}.png" for number in range(count)]
    for name in names:
        Image.new("RGB", (100, 50)).save(folder / name, exif=exif)
    return from_columns(
        folder,
        names=names,
        sizes=np.tile(size, (count, 1)),
        image_of_box=np.arange(count),
        boxes=np.tile(np.float32([1, 1, 9, 9]), (count, 1)),
        labels=np.zeros(count),
        ignore=np.zeros(count, dtype=bool),
        object_ids=np.ones(count),
        class_names=("cat",),
    )


def look(annotations, pictures="header", actions=None, **options):
    log = ProblemLog()
    policy = CheckPolicy(**(actions or {}))
    checked = check_pictures(annotations, log, policy=policy, pictures=pictures, **options)
    return checked, [problem.kind for problem in log.problems]


@pytest.mark.parametrize(
    ("size", "orientation", "kind"),
    [
        ((100, 50), None, None),
        ((100, 50), 3, None),  # upside down has the same size
        ((50, 100), 6, None),  # the size of the picture as it is shown
        ((100, 50), 6, "exif"),  # the size of the stored pixels
        ((50, 100), None, "picture_size"),
        ((100, 51), None, "picture_size"),
        ((99, 50), 6, "picture_size"),
        ((-1, -1), 6, None),
    ],
)
def test_annotated_sizes_are_those_of_the_upright_picture(tmp_path, size, orientation, kind):
    checked, found = look(pictures(tmp_path, size, orientation))
    assert found == ([kind] if kind else [])
    assert len(checked) == (0 if kind else 1)
    if not kind:
        assert checked.sizes[0].tolist() == ([50, 100] if orientation == 6 else [100, 50])


def test_a_wrong_size_may_be_kept_and_is_then_that_of_the_file(tmp_path):
    checked, found = look(pictures(tmp_path, (10, 10)), actions={"picture_size": "keep"})
    assert (checked.sizes.tolist(), found) == ([[100, 50]], ["picture_size"])


def test_pictures_that_cannot_be_read_leave_with_their_boxes(tmp_path):
    annotations = pictures(tmp_path, count=3)
    (tmp_path / "0.png").unlink()
    (tmp_path / "2.png").write_bytes(b"nothing")
    checked, found = look(annotations)
    assert sorted(found) == ["missing_picture", "unreadable_picture"]
    assert (checked.name(0), len(checked.boxes)) == ("1.png", 1)


def test_only_decoding_finds_a_picture_that_is_cut_short(tmp_path):
    annotations = pictures(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (50, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "0.png")
    data = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(data[: len(data) // 2])
    assert look(annotations)[1] == []
    assert look(annotations, "decode")[1] == ["unreadable_picture"]


def test_the_pixel_limit_is_a_kind_of_its_own(tmp_path):
    assert look(pictures(tmp_path), pixel_limit=4999)[1] == ["large_picture"]


def test_pictures_can_be_skipped_or_sampled(tmp_path):
    annotations = pictures(tmp_path, count=10)
    for number in range(10):
        (tmp_path / f"{number}.png").unlink()
    assert look(annotations, "skip")[1] == []
    assert len(look(annotations, sample=3)[1]) == 3
    assert len(look(annotations, sample=99)[1]) == 10


def test_progress_ends_with_all_pictures(tmp_path):
    calls = []
    look(pictures(tmp_path, count=5), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (5, 5)


def test_every_kind_of_the_policy_has_an_action_that_it_allows():
    policy = CheckPolicy()
    assert policy.action("non_finite") == policy.action("unsafe_path") == "error"
    assert {policy.action(field.name) for field in fields(policy)} == {"error", "drop", "clip", "keep"}


def test_an_action_that_a_kind_does_not_have_is_refused():
    policy = CheckPolicy()
    object.__setattr__(policy, "non_finite", "drop")  # the type checker of the tests would refuse it earlier
    with pytest.raises(ValueError, match=r"non_finite.*'error'.*got 'drop'"):
        policy.__post_init__()
