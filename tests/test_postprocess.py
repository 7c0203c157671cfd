"""From predictions to detections: scores, order, NMS by class and image, limits, bad boxes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch.testing import assert_close
from torchvision.ops import nms

from boxmatch.postprocess import PostProcess
from boxmatch.structures import Detections, Predictions

SIZE = (100, 200)
"""Height and width of the input."""


def predictions(
    boxes: list[list[float]], scores: list[float], labels: list[int] | None = None, classes: int = 3
) -> Predictions:
    """One image whose boxes get these scores: the class is certain, the objectness is the score."""
    labels = [0] * len(boxes) if labels is None else labels
    logits = torch.full((1, len(boxes), classes), -200.0)
    logits[0, torch.arange(len(boxes)), torch.tensor(labels, dtype=torch.int64)] = 200.0
    return Predictions(
        logits=logits,
        deltas=torch.zeros(1, len(boxes), 4),
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4),
        quality=torch.logit(torch.tensor(scores)).reshape(1, -1),
    )


def random_predictions(seed: int, images: int = 3, priors: int = 40, classes: int = 2) -> Predictions:
    """Boxes that overlap a lot; scores of few values, so that ties are common."""
    random = torch.Generator().manual_seed(seed)
    low = torch.rand((images, priors, 2), generator=random) * 60
    size = torch.rand((images, priors, 2), generator=random) * 50 - 3
    return Predictions(
        logits=torch.randint(-3, 4, (images, priors, classes), generator=random).float(),
        deltas=torch.zeros(images, priors, 4),
        boxes=torch.cat((low, low + size), 2),
        quality=torch.randint(-2, 3, (images, priors), generator=random).float(),
    )


def oracle(options: PostProcess, given: Predictions) -> list[Detections]:
    """The same rule, one image and class at a time."""
    assert given.boxes is not None and given.quality is not None
    found = []
    for boxes, logits, quality in zip(given.boxes, given.logits, given.quality, strict=True):
        best, labels = logits.max(1)
        scores = quality.sigmoid() * best.sigmoid()
        rows = []
        clipped = torch.stack(
            [
                boxes[:, 0].clamp(0, 200),
                boxes[:, 1].clamp(0, 100),
                boxes[:, 2].clamp(0, 200),
                boxes[:, 3].clamp(0, 100),
            ],
            1,
        )
        valid = (boxes[:, 2:] > boxes[:, :2]).all(1) & (scores > options.score_threshold)
        order = sorted(valid.nonzero().squeeze(1).tolist(), key=lambda row: (-float(scores[row]), row))
        order = order[: options.pre_nms_topk]
        for label in range(logits.shape[1]):
            own = torch.tensor([row for row in order if labels[row] == label], dtype=torch.int64)
            # Strictly falling scores in the given order: NMS has no ties to break.
            rank = torch.arange(len(own), 0, -1, dtype=torch.float64)
            rows += own[nms(clipped[own].double(), rank, options.nms_iou)].tolist()
        rows = torch.tensor(sorted(rows, key=order.index)[: options.max_detections], dtype=torch.int64)
        found.append(Detections(clipped[rows], scores[rows], labels[rows]))
    return found


def same(found: list[Detections], expected: list[Detections]) -> bool:
    return all(
        torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores) and torch.equal(a.labels, b.labels)
        for a, b in zip(found, expected, strict=True)
    )


def one(options: PostProcess, given: Predictions) -> Detections:
    (found,) = options(given, SIZE)
    return found


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    nms_iou=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    max_detections=st.sampled_from([1, 5, 100]),
    pre_nms_topk=st.sampled_from([1, 7, 5000]),
)
def test_the_batch_equals_one_image_and_class_at_a_time(
    seed: int, nms_iou: float, max_detections: int, pre_nms_topk: int
) -> None:
    options = PostProcess(0.1, nms_iou, max_detections, pre_nms_topk)
    given = random_predictions(seed)
    assert same(options(given, SIZE), oracle(options, given))


def test_more_boxes_than_torchvision_shifts_give_the_same() -> None:
    """Above 1000 boxes torchvision goes class by class instead of shifting them apart."""
    given = random_predictions(0, images=2, priors=1500)
    options = PostProcess(0.001, 0.5, 200)
    assert same(options(given, SIZE), oracle(options, given))


def test_a_result_does_not_depend_on_the_place_in_the_batch() -> None:
    given = random_predictions(3, images=1, priors=30)
    assert given.boxes is not None and given.quality is not None
    copies = 40
    many = Predictions(
        given.logits.expand(copies, -1, -1),
        given.deltas.expand(copies, -1, -1),
        given.boxes.expand(copies, -1, -1),
        given.quality.expand(copies, -1),
    )
    options = PostProcess()
    assert same(options(many, SIZE), options(given, SIZE) * copies)


def test_the_score_is_objectness_times_the_greatest_class_probability() -> None:
    given = replace(predictions([[0, 0, 10, 10]], [0.5]), logits=torch.tensor([[[-1.0, 2.0, 0.0]]]))
    found = one(PostProcess(), given)
    assert_close(found.scores, 0.5 * torch.tensor([2.0]).sigmoid())
    assert found.labels.tolist() == [1]


def test_equal_class_probabilities_give_the_lowest_class() -> None:
    given = replace(predictions([[0, 0, 10, 10]], [0.5]), logits=torch.zeros(1, 1, 3))
    assert one(PostProcess(), given).labels.tolist() == [0]


def test_a_single_class_does_not_enter_the_score() -> None:
    given = replace(predictions([[0, 0, 10, 10]], [0.5], classes=1), logits=torch.full((1, 1, 1), -4.0))
    assert_close(one(PostProcess(), given).scores, torch.tensor([0.5]))


def test_without_objectness_the_class_probability_is_the_score() -> None:
    given = replace(
        predictions([[0, 0, 10, 10]], [0.5]), quality=None, logits=torch.tensor([[[1.0, 0.0, 0.0]]])
    )
    assert_close(one(PostProcess(), given).scores, torch.tensor([1.0]).sigmoid())


def test_a_score_equal_to_the_threshold_is_dropped() -> None:
    given = predictions([[0, 0, 10, 10], [50, 50, 60, 60]], [0.5, 0.6])
    assert len(one(PostProcess(score_threshold=0.5), given)) == 1


def test_of_two_overlapping_boxes_of_a_class_the_better_stays_and_other_classes_do_not_meet() -> None:
    boxes = [[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [1.0, 0.0, 11.0, 10.0]]
    found = one(PostProcess(nms_iou=0.6), predictions(boxes, [0.6, 0.7, 0.5], [0, 0, 1]))
    assert found.labels.tolist() == [0, 1]
    assert_close(found.scores, torch.tensor([0.7, 0.5]))


def test_boxes_of_different_images_do_not_meet() -> None:
    single = predictions([[0, 0, 10, 10]], [0.5])
    assert single.boxes is not None and single.quality is not None
    both = Predictions(
        *(torch.cat((part, part)) for part in (single.logits, single.deltas, single.boxes, single.quality))
    )
    assert [len(d) for d in PostProcess(nms_iou=0.0)(both, SIZE)] == [1, 1]


def test_nms_comes_before_the_limit_of_detections() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]]
    found = one(PostProcess(max_detections=2), predictions(boxes, [0.9, 0.8, 0.1]))
    assert_close(found.scores, torch.tensor([0.9, 0.1]))


def test_equal_scores_come_in_the_order_of_the_priors() -> None:
    boxes = [[20.0 * i, 0.0, 20.0 * i + 10, 10.0] for i in range(8)]
    found = one(PostProcess(max_detections=5), predictions(boxes, [0.5] * 8))
    assert found.boxes[:, 0].tolist() == [0, 20, 40, 60, 80]


def test_corners_are_clipped_to_height_and_width() -> None:
    found = one(PostProcess(), predictions([[-5, -6, 500, 600]], [0.5]))
    assert found.boxes.tolist() == [[0, 0, 200, 100]]


def test_each_picture_of_a_batch_has_its_own_border() -> None:
    given = predictions([[0, 0, 50, 80], [5, 0, 50, 40]], [0.9, 0.8])
    given = replace(given, **{name: torch.cat((part, part)) for name, part in vars(given).items()})
    large, small = PostProcess()(given, torch.tensor([[80, 50], [40, 50]]))
    assert large.boxes.tolist() == [[0, 0, 50, 80], [5, 0, 50, 40]]  # IoU 0.5
    assert small.boxes.tolist() == [[0, 0, 50, 40]]  # 0.9 within the picture


def test_sizes_of_another_number_of_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="of each of 1 pictures"):
        PostProcess()(predictions([[0, 0, 50, 80]], [0.9]), torch.tensor([[80, 50], [40, 50]]))


@pytest.mark.parametrize(
    "box",
    [
        [10, 10, 10, 20],
        [10, 10, 20, 10],
        [20, 10, 10, 20],
        [20, 20, 10, 10],
        [float("nan"), 0, 10, 10],
        [0, 0, float("inf"), 10],
    ],
    ids=["no width", "no height", "inverted", "inverted twice", "nan", "infinite"],
)
def test_a_box_without_extent_or_not_finite_is_dropped(box: list[float]) -> None:
    found = one(PostProcess(), predictions([box, [50, 50, 60, 60]], [0.9, 0.5]))
    assert found.boxes.tolist() == [[50, 50, 60, 60]]


def test_a_score_that_is_not_a_number_is_dropped() -> None:
    given = predictions([[0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.5])
    given = replace(given, quality=torch.tensor([[float("nan"), 0.0]]))
    assert len(one(PostProcess(), given)) == 1


@pytest.mark.parametrize("priors", [0, 4])
def test_an_image_without_candidates_gets_an_empty_result(priors: int) -> None:
    given = predictions([[0, 0, 10, 10]] * priors, [0.1] * priors)
    found = one(PostProcess(score_threshold=0.5), given)
    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,) and found.labels.dtype == torch.int64


def test_an_empty_batch_gives_no_result() -> None:
    none = Predictions(torch.zeros(0, 5, 3), torch.zeros(0, 5, 4), torch.zeros(0, 5, 4), torch.zeros(0, 5))
    assert PostProcess()(none, SIZE) == []


def test_detections_keep_no_graph_and_are_float32_for_half_precision() -> None:
    given = predictions([[0, 0, 10, 10]], [0.5])
    assert given.boxes is not None and given.quality is not None
    half = Predictions(
        given.logits.half(), given.deltas, given.boxes.half(), given.quality.half().requires_grad_()
    )
    found = one(PostProcess(), half)
    assert found.scores.dtype == found.boxes.dtype == torch.float32 and not found.scores.requires_grad


def test_predictions_without_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="decode them first"):
        PostProcess()(replace(predictions([[0, 0, 10, 10]], [0.5]), boxes=None), SIZE)


@pytest.mark.parametrize(
    "options",
    [{"score_threshold": -0.1}, {"nms_iou": 1.5}, {"max_detections": 0}, {"pre_nms_topk": 0}],
    ids=lambda options: next(iter(options)),
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(options))):
        PostProcess(**options)
