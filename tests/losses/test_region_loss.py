"""The loss of region proposals against numbers on paper, and the sample it is taken from."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from boxmatch.delta_coder import DeltaCoder
from boxmatch.distance_coder import DistanceCoder
from boxmatch.losses import RegionLoss
from boxmatch.losses.sampling import balanced_sample
from boxmatch.priors import AnchorGrid
from boxmatch.structures import Assignment, Pairs, Predictions, Targets

# Four squares of 10 in a row: (0, 0, 10, 10), (10, 0, 20, 10), …
PRIORS = AnchorGrid([[(10.0, 10.0)]], (10,))([(1, 4)])
CODER = DeltaCoder((1.0, 1.0, 1.0, 1.0))
TARGETS = Targets.from_lists([[[0, 0, 20, 10]], []], [[2], []])
TERMS = ("region_objectness", "region_box", "region_iou")


def predictions(iou: bool = True, images: int = 2) -> Predictions:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0]).expand(images, 4)[..., None].clone().requires_grad_()
    deltas = torch.zeros(images, 4, 4, requires_grad=True)
    quality = torch.full((images, 4), 0.5, requires_grad=True) if iou else None
    return Predictions(logits, deltas, quality=quality)


def assigned(*pairs: tuple[int, int], targets: Targets = TARGETS) -> Assignment:
    gt, prior = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return Assignment.hard(Pairs(gt, prior), targets, 4, levels=PRIORS.levels)


def entropy(logit: float, target: float) -> float:
    return math.log1p(math.exp(-logit)) + (1 - target) * logit


def terms(said: Predictions, who: Assignment, **options: float) -> dict[str, Tensor]:
    return RegionLoss(**options)(PRIORS, TARGETS, said, who, CODER)


def test_every_term_is_what_it_is_on_paper():
    # One prior of two images learns a box twice as wide: half a prior to the right, log 2 wider.
    found = terms(predictions(), assigned((0, 0)))
    negatives = [1.0, -1.0, 2.0, 0.0, 1.0, -1.0, 2.0]
    objectness = entropy(0.0, 1.0) + sum(entropy(logit, 0.0) for logit in negatives)
    iou = 11 * 11 / (21 * 11)  # both are a pixel wider and taller than their coordinates say
    assert_close(found["region_objectness"].item(), objectness / 512)
    assert_close(found["region_box"].item(), iou * (0.5 + math.log(2)) / 512)
    assert_close(found["region_iou"].item(), entropy(0.5, iou))


def test_without_an_iou_branch_boxes_count_in_full():
    found = terms(predictions(iou=False), assigned((0, 0)))
    assert set(found) == {"region_objectness", "region_box"}
    assert_close(found["region_box"].item(), (0.5 + math.log(2)) / 512)


def test_the_iou_is_a_mean_over_positives_and_its_target_has_no_gradient():
    said = predictions()
    terms(said, assigned((0, 0), (0, 1)))["region_iou"].backward()
    assert said.deltas.grad is None
    target = 11 / 21
    assert_close(said.quality.grad[0, :2], torch.full((2,), (1 / (1 + math.exp(-0.5)) - target) / 2))


@pytest.mark.parametrize("images", [1, 2])
def test_without_positives_two_terms_are_exactly_zero_and_keep_the_graph(images: int):
    empty = Targets.from_lists([[]] * images, [[]] * images)
    said = predictions(images=images)
    found = RegionLoss()(PRIORS, empty, said, assigned(targets=empty), CODER)
    assert found["region_box"].item() == found["region_iou"].item() == 0.0
    torch.stack(list(found.values())).sum().backward()
    for part in (said.deltas, said.quality):
        assert part.grad is not None and not part.grad.any()
    assert said.logits.grad.abs().min() > 0


def test_priors_that_take_no_part_are_never_drawn():
    who = assigned((0, 0))
    who.ignored[:, 1:] = True
    said = predictions()
    terms(said, who)["region_objectness"].backward()
    assert said.logits.grad.squeeze(2).ne(0).tolist() == [[True, False, False, False], [True] + [False] * 3]


@pytest.mark.parametrize(("positives", "expected"), [(0, (0, 8)), (2, (2, 6)), (30, (4, 4)), (96, (4, 0))])
def test_the_sample_is_full_wherever_there_are_enough(positives: int, expected: tuple[int, int]):
    positive = torch.arange(100).expand(3, 100) < positives
    negative = (torch.arange(100).expand(3, 100) >= positives) & (positives < 96)
    sample = balanced_sample(positive, negative, 8, 0.5)
    for (image, prior), mask, count in zip(sample, (positive, negative), expected, strict=True):
        assert torch.bincount(image, minlength=3).tolist() == [count] * 3
        assert mask[image, prior].all()
        assert len({*zip(image.tolist(), prior.tolist())}) == len(image)


def test_every_prior_is_drawn_equally_often():
    torch.manual_seed(0)
    positive, negative = torch.zeros(4000, 10, dtype=torch.bool), torch.ones(4000, 10, dtype=torch.bool)
    drawn = torch.bincount(balanced_sample(positive, negative, 3, 0.5).negative[1], minlength=10)
    assert (drawn - 1200).abs().max() < 150  # five standard deviations


def test_a_smaller_image_gives_all_it_has():
    positive = torch.tensor([[True, False, False]])
    sample = balanced_sample(positive, ~positive, 256, 0.5)
    assert len(sample.positive[0]) == 1 and len(sample.negative[0]) == 2


def test_values_and_gradients_are_right_in_float64():
    coder, who = CODER, assigned((0, 0), (0, 1))

    def loss(logits: Tensor, deltas: Tensor) -> Tensor:
        said = Predictions(logits, deltas)
        return torch.stack(list(RegionLoss()(PRIORS, TARGETS, said, who, coder).values())).sum()

    torch.manual_seed(0)
    logits = torch.randn(2, 4, 1, dtype=torch.float64, requires_grad=True)
    deltas = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (logits, deltas))


def test_soft_assignments_and_other_coders_are_refused():
    who = assigned((0, 0))
    with pytest.raises(ValueError, match="expected a hard assignment"):
        terms(predictions(), replace(who, score=torch.tensor([0.5])))
    with pytest.raises(ValueError, match="expected a DeltaCoder"):
        RegionLoss()(PRIORS, TARGETS, predictions(), who, DistanceCoder())
    with pytest.raises(ValueError, match="samples of 1 or more"):
        RegionLoss(samples=0)
