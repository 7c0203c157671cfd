"""Proposals of a region proposal network, against a loop over pictures and levels."""

import pytest
import torch
from torchvision.ops import nms

from boxmatch.boxes import iou_matrix
from boxmatch.delta_coder import DeltaCoder
from boxmatch.postprocess import box_limits
from boxmatch.priors import AnchorGrid
from boxmatch.region_proposals import RegionProposals, proposal_logits
from boxmatch.structures import Predictions

PRIORS = AnchorGrid([[(16, 16), (24, 12)], [(32, 32), (48, 24)]], (8, 16))([(8, 12), (4, 6)])
CODER = DeltaCoder((1.0, 1.0, 1.0, 1.0))
LIMITS = box_limits((64, 96), torch.zeros(2, 1, 4))


def predictions(seed: int = 0, quality: bool = True) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, len(PRIORS))
    return Predictions(
        logits=torch.randn(*shape, 1, generator=generator),
        deltas=torch.randn(*shape, 4, generator=generator) / 2,
        quality=torch.randn(shape, generator=generator) if quality else None,
    )


def loops(said: Predictions, before: int, after: int, iou: float) -> list[torch.Tensor]:
    found = []
    boxes = CODER.decode_boxes(said.deltas, PRIORS).clamp(min=0).minimum(LIMITS[:, None])
    for image in range(2):
        kept_boxes, kept_scores, begin = [], [], 0
        for level in PRIORS.levels:
            rows = slice(begin, begin + len(level))
            score, here = proposal_logits(said)[image, rows], boxes[image, rows]
            best = score.argsort(descending=True, stable=True)[:before]
            score, here = score[best], here[best]
            seen = (here[:, 2:] > here[:, :2]).all(1)
            kept = nms(here[seen], score[seen], iou)
            kept_boxes.append(here[seen][kept])
            kept_scores.append(score[seen][kept])
            begin += len(level)
        order = torch.cat(kept_scores).argsort(descending=True, stable=True)[:after]
        found.append(torch.cat(kept_boxes)[order])
    return found


@pytest.mark.parametrize("quality", [True, False])
@pytest.mark.parametrize(("before", "after"), [(1000, 1000), (40, 1000), (40, 20), (7, 3)])
def test_they_are_those_of_a_loop_over_pictures_and_levels(before: int, after: int, quality: bool):
    said = predictions(quality=quality)
    found = RegionProposals(before, after, 0.6)(said, PRIORS, CODER, LIMITS)
    for ours, expected in zip(found, loops(said, before, after, 0.6), strict=True):
        assert len(ours) > 2
        assert torch.equal(ours, expected)


def test_levels_do_not_suppress_each_other():
    small = AnchorGrid([[(32, 32)], [(32, 32)]], (32, 32))([(1, 1), (1, 1)])
    said = Predictions(torch.zeros(1, 2, 1), torch.zeros(1, 2, 4))
    (found,) = RegionProposals()(said, small, CODER, LIMITS[:1])
    assert len(found) == 2 and iou_matrix(found, found).min() == 1


def test_the_score_is_the_geometric_mean_as_a_logit():
    said = predictions()
    p, q = said.logits.squeeze(2).double().sigmoid(), said.quality.double().sigmoid()
    torch.testing.assert_close(proposal_logits(said).double(), (p * q).sqrt().logit(), rtol=1e-4, atol=1e-4)
    assert torch.equal(proposal_logits(predictions(quality=False)), said.logits.squeeze(2))


def test_the_score_is_never_infinite():
    values = torch.tensor([-3e38, -200.0, -90.0, 0.0, 17.0, 90.0, 200.0, 3e38])
    grid = torch.cartesian_prod(values, values)
    said = Predictions(grid[None, :, :1], torch.zeros(1, len(grid), 4), quality=grid[None, :, 1])
    scores = proposal_logits(said)
    assert torch.isfinite(scores).all()
    assert scores.max() == proposal_logits(said)[0, -1]


def test_boxes_that_are_not_finite_or_lie_beside_the_picture_are_dropped():
    said = predictions(quality=False)
    said.deltas[0, 0] = torch.nan
    said.logits[0, 0] = torch.nan
    said.deltas[0, 1:] = torch.tensor([1e4, 0.0, 0.0, 0.0])
    found = RegionProposals()(said, PRIORS, CODER, LIMITS)
    assert len(found[0]) == 0
    assert len(found[1]) > 0


@pytest.mark.parametrize("options", [{"pre_nms_topk": 0}, {"post_nms_topk": 0}, {"nms_iou": 1.5}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="RegionProposals: expected"):
        RegionProposals(**options)
