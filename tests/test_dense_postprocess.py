"""Detections of the dense detectors: thresholds, per-level top-k, ties, clipping, and score voting."""

import math
import statistics
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.testing import assert_close
from torchvision.ops import box_iou

from boxmatch.dense_postprocess import DensePostProcess, vote
from boxmatch.spatial import pieces
from boxmatch.structures import Detections, Level, Predictions

SIZE = (100, 200)
"""Height and width of the input."""


def predictions(
    boxes: list[list[float]], probability: list[list[float]], quality: list[float] | None = None
) -> Predictions:
    """One image: boxes, the probability of each class, and that of the quality branch (1 if not given)."""
    certain = torch.full((1, len(boxes)), 200.0)
    return Predictions(
        logits=torch.logit(torch.tensor(probability))[None],
        deltas=torch.zeros(1, len(boxes), 4),
        boxes=torch.tensor(boxes)[None],
        quality=certain if quality is None else torch.logit(torch.tensor(quality))[None],
    )


def apart(count: int) -> list[list[float]]:
    """Boxes that do not touch."""
    return [[10.0 * i, 10.0, 10.0 * i + 8, 18.0] for i in range(count)]


def random_predictions(seed: int, images: int = 3, priors: int = 30, classes: int = 2) -> Predictions:
    """Boxes that overlap a lot, some broken; scores of few values, so that ties are common."""
    random = torch.Generator().manual_seed(seed)
    low = torch.randint(-5, 60, (images, priors, 2), generator=random).float()
    size = torch.randint(-2, 50, (images, priors, 2), generator=random).float()
    boxes = torch.cat((low, low + size), 2)
    boxes[torch.rand((images, priors), generator=random) < 0.1] = math.nan
    return Predictions(
        logits=torch.randint(-5, 4, (images, priors, classes), generator=random).float(),
        deltas=torch.zeros(images, priors, 4),
        boxes=boxes,
        quality=torch.randint(-2, 3, (images, priors), generator=random).float(),
    )


def image_of(given_: Predictions, image: int) -> Predictions:
    return Predictions(*(part[image : image + 1] for part in vars(given_).values()))


def same(found: Detections, expected: Detections) -> bool:
    return all(torch.equal(a, b) for a, b in zip(vars(found).values(), vars(expected).values(), strict=True))


def one(options: DensePostProcess, given_: Predictions, levels: tuple[Level, ...] = ()) -> Detections:
    (found,) = options(given_, SIZE, levels)
    return found


@pytest.mark.parametrize(
    ("fusion", "score"), [("sqrt", math.sqrt(0.4 * 0.5)), ("product", 0.4 * 0.5), ("class", 0.4)]
)
def test_each_fusion_by_hand(fusion: str, score: float):
    found = one(DensePostProcess(fusion=fusion), predictions(apart(1), [[0.4]], [0.5]))
    assert found.scores.tolist() == pytest.approx([score])


def test_the_threshold_looks_at_the_class_alone_or_at_the_score():
    given_ = predictions(apart(2), [[0.3], [0.9]], [0.9, 0.2])  # products 0.27 and 0.18
    by_class = DensePostProcess(score_threshold=0.4, fusion="product")
    by_score = replace(by_class, score_threshold=0.2, threshold_on="score")
    assert one(by_class, given_).scores.tolist() == pytest.approx([0.18])
    assert one(by_score, given_).scores.tolist() == pytest.approx([0.27])


def test_every_class_above_the_threshold_is_a_detection_of_its_own():
    found = one(DensePostProcess(fusion="class"), predictions(apart(1), [[0.2, 0.04, 0.6]]))
    assert found.labels.tolist() == [2, 0]
    assert found.scores.tolist() == pytest.approx([0.6, 0.2])


def test_the_best_of_each_level_stay_and_not_the_best_of_all():
    levels = (Level(1, 3, 8, 1), Level(1, 2, 16, 1))
    given_ = predictions(apart(5), [[0.7], [0.9], [0.8], [0.2], [0.3]])
    found = one(DensePostProcess(fusion="class", pre_nms_topk=1), given_, levels)
    assert found.scores.tolist() == pytest.approx([0.9, 0.3])
    assert one(DensePostProcess(fusion="class", pre_nms_topk=1), given_).scores.tolist() == pytest.approx(
        [0.9]
    )


def test_all_that_tie_with_the_last_one_stay():
    given_ = predictions(apart(5), [[0.9], [0.5], [0.5], [0.5], [0.4]])
    assert len(one(DensePostProcess(fusion="class", max_detections=2), given_)) == 4
    assert len(one(DensePostProcess(fusion="class", max_detections=4), given_)) == 4
    assert len(one(DensePostProcess(fusion="class", max_detections=1), given_)) == 1


def test_equal_scores_come_by_prior_then_class():
    found = one(DensePostProcess(fusion="class"), predictions(apart(2), [[0.5, 0.5], [0.5, 0.5]]))
    assert found.labels.tolist() == [0, 1, 0, 1]
    assert found.boxes[:, 0].tolist() == [0, 0, 10, 10]


def test_inclusive_pixels_clip_a_box_beyond_the_border_to_the_last_pixel():
    given_ = predictions([[-30.0, 20.0, -10.0, 40.0], [210.0, 50.0, 250.0, 70.0]], [[0.9], [0.8]])
    plain = one(DensePostProcess(), given_).boxes.tolist()
    inclusive = one(DensePostProcess(inclusive_pixels=True), given_).boxes.tolist()
    assert plain == [[0, 20, 0, 40], [200, 50, 200, 70]]
    assert inclusive == [[0, 20, 1, 40], [199, 50, 200, 70]]


@pytest.mark.parametrize("vote_sigma", [None, 0.025])
def test_a_box_beyond_its_own_picture_is_clipped_there_before_suppression(vote_sigma: float | None):
    # IoU 0.5; within a picture of 50 x 40, where both end at the border, 0.9.
    alone = predictions([[0.0, 0, 50, 80], [5.0, 0, 50, 40]], [[0.9], [0.8]])
    both = Predictions(*(torch.cat((part, part)) for part in vars(alone).values()))
    sizes = torch.tensor([[80, 50], [40, 50]])  # the second picture is padded to the height of the first
    options = DensePostProcess(vote_sigma=vote_sigma)
    large, small = options(both, sizes)
    assert (len(large), len(small)) == (2, 1)
    assert small.boxes[0, 3] == 40
    assert same(large, options(alone, (80, 50))[0]) and same(small, options(alone, (40, 50))[0])


def test_a_box_below_its_own_picture_becomes_its_last_row_of_pixels():
    beyond = predictions([[10.0, 60, 30, 70]], [[0.9]])
    for inclusive, expected in ((False, [10, 40, 30, 40]), (True, [10, 39, 30, 40])):
        (found,) = DensePostProcess(inclusive_pixels=inclusive)(beyond, torch.tensor([[40, 50]]))
        assert found.boxes.tolist() == [expected]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_boxes_that_are_not_finite_are_dropped_and_do_not_vote(broken: float):
    good = [10.0, 10.0, 30.0, 30.0]
    given_ = predictions([good, [broken, 10.0, 30.0, 30.0]], [[0.5], [0.9]])
    found = one(DensePostProcess(vote_sigma=0.025), given_)
    assert found.boxes.tolist() == [pytest.approx(good)]


def test_no_image_no_prior_and_nothing_above_the_threshold():
    options = DensePostProcess(vote_sigma=0.025)
    assert options(random_predictions(0, images=0), SIZE) == []
    empty = options(random_predictions(0, priors=0), SIZE)
    low = replace(options, score_threshold=1.0)(random_predictions(0), SIZE)
    assert [len(found) for found in empty + low] == [0] * 6
    assert all(found.boxes.shape == (0, 4) for found in empty + low)


def test_voting_by_hand():
    # IoU 0.8; weights 0.9 and 0.6 · exp(-0.04 / 0.025).
    given_ = predictions([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0]], [[0.9], [0.6]])
    found = one(DensePostProcess(fusion="class", vote_sigma=0.025), given_)
    weight = 0.6 * math.exp(-0.04 / 0.025)
    expected = (0.9 * 10 + weight * 8) / (0.9 + weight)
    assert found.boxes.tolist() == [pytest.approx([0, 0, 10, expected])]
    assert found.scores.tolist() == pytest.approx([0.9])


def test_a_box_without_extent_keeps_its_place_when_others_are_voted():
    line = [20.0, 5.0, 20.0, 15.0]
    found = one(
        DensePostProcess(vote_sigma=0.025), predictions([line, [0.0, 0.0, 30.0, 30.0]], [[0.9], [0.8]])
    )
    assert found.boxes.tolist() == [line, pytest.approx([0, 0, 30, 30])]


def slow_vote(boxes: Tensor, scores: Tensor, group: Tensor, kept: Tensor, sigma: float) -> list[list[float]]:
    """One kept box and one voter at a time, in float64."""
    voted = []
    rows = boxes.double().tolist()
    for k in kept.tolist():
        total, sums = 0.0, [0.0] * 4
        for j in range(len(rows)):
            (a1, b1, a2, b2), (c1, d1, c2, d2) = rows[k], rows[j]
            inter = max(0.0, min(a2, c2) - max(a1, c1)) * max(0.0, min(b2, d2) - max(b1, d1))
            union = (a2 - a1) * (b2 - b1) + (c2 - c1) * (d2 - d1) - inter
            iou = inter / union if union > 0 else 0.0
            if group[j] == group[k] and iou > 0.01:
                weight = float(scores[j]) * math.exp(-((1 - iou) ** 2) / sigma)
                total += weight
                sums = [s + weight * side for s, side in zip(sums, rows[j], strict=True)]
        voted.append([s / total for s in sums])
    return voted


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    sigma=st.sampled_from([0.01, 0.025, 0.5]),
    budget=st.sampled_from([1, 2**22]),
)
def test_voting_equals_one_box_at_a_time_in_any_pieces(seed: int, sigma: float, budget: int):
    random = torch.Generator().manual_seed(seed)
    low = torch.rand((25, 2), generator=random) * 30
    boxes = torch.cat((low, low + 1 + torch.rand((25, 2), generator=random) * 30), 1)
    scores = torch.rand(25, generator=random) + 0.05
    group = torch.randint(0, 4, (25,), generator=random)
    kept = (torch.rand(25, generator=random) < 0.4).nonzero().squeeze(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PAIR_BUDGET", budget)
        found = vote(boxes, scores, group, kept, sigma, 4)
    expected = torch.tensor(slow_vote(boxes, scores, group, kept, sigma)).reshape(-1, 4)
    assert_close(found, expected, atol=1e-3, rtol=1e-5)


def test_no_more_votes_are_counted_at_once_than_the_budget_allows(monkeypatch):
    import boxmatch.dense_postprocess as module

    longest = []

    def counted(boxes: Tensor, rows: Tensor) -> Tensor:
        longest.append(len(rows))
        return boxes[rows]

    monkeypatch.setattr(module, "take_boxes", counted)
    monkeypatch.setattr(pieces, "PAIR_BUDGET", 1000)
    boxes = torch.rand(300, 2).repeat(1, 2) + torch.tensor([0.0, 0.0, 1.0, 1.0])
    group = torch.zeros(300, dtype=torch.int64)
    vote(boxes, torch.rand(300), group, torch.arange(300), 0.025, 1)
    assert max(longest) <= 1000
    assert sum(longest) == 2 * 300 * 300


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    fusion=st.sampled_from(["sqrt", "product", "class"]),
    vote_sigma=st.sampled_from([None, 0.025]),
)
def test_a_batch_equals_image_by_image_in_any_order(seed: int, fusion: str, vote_sigma: float | None):
    given_ = random_predictions(seed)
    options = DensePostProcess(
        fusion=fusion, vote_sigma=vote_sigma, max_detections=5, pre_nms_topk=8, inclusive_pixels=True
    )
    levels = (Level(4, 5, 8, 1), Level(2, 5, 16, 1))
    together = options(given_, SIZE, levels)
    for image, found in enumerate(together):
        (alone,) = options(image_of(given_, image), SIZE, levels)
        assert same(found, alone)
        assert torch.isfinite(found.boxes).all()
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    turned = Predictions(*(part.flip(0) for part in vars(given_).values()))
    for found, expected in zip(options(turned, SIZE, levels), reversed(together), strict=True):
        assert same(found, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fusion": "sum"}, "fusion"),
        ({"threshold_on": "box"}, "threshold_on"),
        ({"vote_sigma": 0.0}, "vote_sigma"),
        ({"vote_sigma": math.nan}, "vote_sigma"),
        ({"score_threshold": 2.0}, "score_threshold"),
    ],
)
def test_options_out_of_range_are_refused(arguments: dict, message: str):
    # Words are refused by the type checker of the tests before the constructor sees them.
    with pytest.raises((ValueError, TypeCheckError), match=message):
        DensePostProcess(**arguments)


def test_missing_boxes_and_a_missing_quality_branch_are_named():
    given_ = predictions(apart(1), [[0.5]])
    with pytest.raises(ValueError, match=r"predictions\.boxes"):
        DensePostProcess()(replace(given_, boxes=None), SIZE)
    with pytest.raises(ValueError, match="quality branch"):
        DensePostProcess()(replace(given_, quality=None), SIZE)
    assert len(one(DensePostProcess(fusion="class"), replace(given_, quality=None))) == 1


@pytest.mark.slow
def test_voting_adds_no_tenth_to_inference_at_800_by_1344():
    """Processor time of network and post-processing, in one run; candidates lie around twelve boxes."""
    from boxmatch.models.dense_presets import paa

    torch.manual_seed(0)
    detector = paa([f"class {number}" for number in range(80)], backbone="resnet18").eval()
    images = torch.randint(0, 256, (1, 3, 800, 1344), dtype=torch.uint8)
    priors = detector.priors(images)
    centers = torch.rand(12, 2) * torch.tensor([1100.0, 600.0]) + 100
    half = torch.rand(12, 2) * 100 + 20
    iou, gt = box_iou(priors.boxes, torch.cat((centers - half, centers + half), 1)).max(1)
    near = (iou > 0.1).nonzero().squeeze(1)
    boxes, logits = priors.boxes.clone(), torch.randn(len(priors), 80) - 6
    found = torch.cat((centers - half, centers + half), 1)[gt[near]]
    boxes[near] = found + torch.randn(len(near), 4) * 8
    logits[near, gt[near]] = torch.randn(len(near))
    given_ = Predictions(
        logits[None], torch.zeros(1, len(priors), 4), boxes[None], torch.randn(1, len(priors))
    )
    start = time.process_time()
    with torch.no_grad():
        detector(images)
    network = time.process_time() - start
    seconds: dict[float | None, list[float]] = {0.025: [], None: []}
    for _ in range(7):
        for sigma, measured in seconds.items():
            options = replace(detector.postprocess, vote_sigma=sigma)
            start = time.process_time()
            (detections,) = options(given_, (800, 1344), priors.levels)
            measured.append(time.process_time() - start)
    assert len(detections) == 100
    voted, plain = (network + statistics.median(measured) for measured in seconds.values())
    assert voted / plain <= 1.1


def test_a_picture_shows_roots_of_products_from_a_higher_score_on():
    assert DensePostProcess(fusion="product").shown_score == 0.3
    assert DensePostProcess(fusion="sqrt").shown_score == pytest.approx(0.3**0.5)
