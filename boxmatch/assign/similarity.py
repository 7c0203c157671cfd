"""How alike ground truths and priors are: the measures by name, and the pairs that are alike enough."""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from ..boxes import box_centers, box_sizes, take_boxes
from ..priors import Priors
from ..segments import ragged_arange, segment_max
from ..spatial import blocks
from ..spatial.index import GridIndex
from ..spatial.overlapping import CORNER_SLACK, nearest_cells
from ..spatial.pieces import in_pieces
from ..structures import Pairs, Targets
from .measures import KLD, NWD, Distance, Overlap, SimD, Similarity

SimilarityName = Literal["iou", "giou", "diou", "ciou", "nwd", "kld", "simd"]

_BY_NAME: dict[str, Similarity] = {
    "iou": Overlap("iou"),
    "giou": Overlap("giou"),
    "diou": Overlap("diou"),
    "ciou": Overlap("ciou"),
    "nwd": NWD(),
    "kld": KLD(),
    "simd": SimD(),
}

_PIECES_PER_PAIR = 4
"""What a pair of a distance measure, in float64, counts in the memory bound of the queries."""


def as_similarity(similarity: str | Similarity, name: str = "similarity") -> Similarity:
    """The measure of that name with its published constants, or the measure itself.

    Raises:
        ValueError: there is no such name.
    """
    if isinstance(similarity, Similarity):
        return similarity
    if similarity not in _BY_NAME:
        raise ValueError(f"expected {name} in {get_args(SimilarityName)} or a measure, got {similarity!r}")
    return _BY_NAME[similarity]


def pair_similarity(
    gts: Float[Tensor, "N 4"], others: Float[Tensor, "N 4"], similarity: SimilarityName | Similarity
) -> Float[Tensor, "N"]:
    """How alike each ground truth and the other box of its pair are; 1 for equal boxes.

    The same bits wherever in a tensor a pair stands, finite for all finite boxes, without gradient in mind.

    Args:
        gts: ground truths, xyxy px.
        others: priors or predicted boxes, xyxy px.
        similarity: a name, or a measure with constants of its own.

    Raises:
        ValueError: there is no such name.
    """
    return as_similarity(similarity)(gts, others)


def similar(
    priors: Priors, targets: Targets, least: Float32[Tensor, "G"], measure: Similarity
) -> tuple[Pairs, Float32[Tensor, "N"]]:
    """Priors whose similarity to the box is above 0 and at least `least`, and that similarity.

    Pairs are ordered by box, then by prior. On a grid, time and memory grow with the number of pairs.

    Args:
        least: per box, at most 1.
    """
    if isinstance(measure, Overlap):
        # The relatives of the IoU are never more than it.
        pairs, iou = priors.overlaps(targets, least.clamp(min=0))
        if measure.kind == "iou":
            return pairs, iou
        return _alike(pairs, priors, targets, least, measure)
    assert isinstance(measure, Distance)
    if priors.index is None:
        lengths = torch.full_like(targets.labels, len(priors))
    else:
        windows = _windows(priors.index, targets.boxes, least, measure)
        lengths = blocks.count_between(priors.index, windows)

    def part(piece: slice) -> tuple[Tensor, ...]:
        if priors.index is None:
            pairs = Pairs(*ragged_arange(lengths[piece]))
        else:
            pairs = blocks.between(priors.index, windows[piece])
        pairs, value = _alike(pairs, priors, targets.select(piece), least[piece], measure)
        return pairs.gt + (piece.start or 0), pairs.prior, value

    gt, prior, value = in_pieces(lengths * _PIECES_PER_PAIR, part, cached=True)
    return Pairs(gt, prior), value


def best_nearby(priors: Priors, targets: Targets, measure: Similarity) -> Float32[Tensor, "G"]:
    """For every box the similarity of a prior that is the most similar or nearly so; -inf without priors.

    On a grid it is the best of the cell nearest to the box's centre, over all levels: never more than the
    greatest there is, and an anchor shape is not more similar to the box elsewhere, except for the rounding
    of coordinates and for diou and ciou of hardly overlapping boxes. On no grid it is the greatest.
    """
    if priors.index is not None:
        gt, prior = nearest_cells(priors.index, targets.boxes)
        value = measure(take_boxes(targets.boxes, gt), take_boxes(priors.index.boxes, prior))
        return segment_max(value, gt, len(targets))
    lengths = torch.full_like(targets.labels, len(priors))

    def part(piece: slice) -> tuple[Tensor, ...]:
        gt, prior = ragged_arange(lengths[piece])
        boxes = targets.boxes[piece]
        value = measure(take_boxes(boxes, gt), take_boxes(priors.boxes, prior))
        return (segment_max(value, gt, len(boxes)),)

    return in_pieces(lengths * _PIECES_PER_PAIR, part, cached=True)[0]


def _alike(
    pairs: Pairs, priors: Priors, targets: Targets, least: Float32[Tensor, "G"], measure: Similarity
) -> tuple[Pairs, Float32[Tensor, "N"]]:
    """The pairs that are similar enough, and how much they are."""
    boxes = priors.boxes if priors.index is None else priors.index.boxes
    value = measure(take_boxes(targets.boxes, pairs.gt), take_boxes(boxes, pairs.prior))
    enough = (value >= least.index_select(0, pairs.gt)).logical_and_(value > 0)
    rows = enough.nonzero().squeeze(1)
    return pairs.select(rows), value.index_select(0, rows)


def _windows(
    index: GridIndex, boxes: Float[Tensor, "G 4"], least: Float32[Tensor, "G"], measure: Distance
) -> Float[Tensor, "G L 4"]:
    """Where the centres of similar priors can lie, per level; swapped sides where no anchor is similar."""
    slack = CORNER_SLACK * torch.cat((boxes.flatten().abs(), index.extent[None])).amax().double()
    # A similarity of 0 is none; what is rounded to a float32 above 0 is more than 2^-150.
    lowest = least.double().clamp(min=2.0**-150)[:, None, None]
    sizes = box_sizes(boxes).double().clamp(min=0)[:, None, None]
    half = measure.farthest(lowest, sizes, index.wh.double(), slack)  # (G, L, A, 2)
    # The anchors of a cell share its centre, so the one that reaches farthest decides; per axis.
    half = half.amax(2)
    center = box_centers(boxes).double()[:, None]
    margin = torch.where(half > 0, half + slack, -1.0)
    return torch.cat((center - margin, center + margin), dim=2).float()
