"""Matching by thresholds on the similarity: all of Max-IoU, and how other rules begin."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from ..boxes import take_boxes
from ..priors import Priors
from ..segments import concatenated_ranges, first_by_priority, segment_max
from ..spatial.pieces import in_pieces
from ..structures import Pairs, Targets
from .measures import Similarity
from .pick import owners
from .similarity import SimilarityName, as_similarity, best_nearby, similar
from .story import Story
from .take import places

LowQuality = Literal["reassign", "keep_argmax", "off"]


@dataclass(frozen=True)
class Matches:
    """Which prior was matched to which box.

    Args:
        pairs: matched pairs, ordered by box, then prior; of one image no prior twice.
        similarity: of each pair.
        ignored: priors that are neither matched nor background.
        candidates: what the boxes asked for, before each prior was given to one.
    """

    pairs: Pairs
    similarity: Float32[Tensor, "N"]
    ignored: Bool[Tensor, "B P"]
    candidates: Pairs


def iou_matches(
    priors: Priors,
    targets: Targets,
    positive: float,
    negative: float | tuple[float, float],
    *,
    low_quality: LowQuality = "reassign",
    min_positive: float = 0.0,
    similarity: SimilarityName | Similarity = "iou",
    story: Story | None = None,
) -> Matches:
    """Match every prior to the most similar box of its image, where that is similar enough.

    With m the greatest similarity of a prior to any box of its image, of equal ones that of the lowest row:
    matched if m >= positive; background if low <= m < high; ignored otherwise. Where the image has no boxes
    all priors are background.

    Args:
        positive: at most 1.
        negative: high, the low end being 0; or (low, high). 0 <= low < high <= positive.
        low_quality: what happens to the priors that are most similar to a box, of all priors, if that is
            above 0 and at least `min_positive`; to all of them where several are equally so.

            * reassign: they are matched to that box, even if another is more similar. A prior that is the
              best of several boxes goes to the one it is most similar to, of equal ones the lowest row.
            * keep_argmax: they are matched, whatever m is, each to the box it is most similar to.
            * off: nothing.
        similarity: a name or a measure.
        story: told of every pair that reaches the lower of the thresholds, and of the best of each box.
    """
    measure, off = as_similarity(similarity), low_quality == "off"
    low, high = negative if isinstance(negative, tuple) else (0.0, negative)
    floor = low or high
    pairs, value = _listed(priors, targets, floor, measure, best_too=not off)
    place = places(pairs, targets, len(priors))
    best = owners(pairs, value, targets, len(priors))  # one pair of every listed prior
    best_value, best_place = value.index_select(0, best), place.index_select(0, best)
    rescuing = best[:0] if off else _rescuing(pairs, value, targets, min_positive)
    rescued = torch.zeros(targets.batch_size * len(priors), dtype=torch.bool, device=place.device)
    rescued.index_fill_(0, place.index_select(0, rescuing), True)
    of_rescued = rescued.index_select(0, best_place)
    enough = best_value >= positive
    ignored = torch.zeros_like(rescued) if low == 0 else _with_boxes(targets, len(priors))
    ignored.index_fill_(0, best_place[best_value >= floor], False)
    ignored.index_fill_(0, best_place[(best_value >= high) & ~enough], True).logical_and_(~rescued)
    asked = value >= positive
    asked.index_fill_(0, rescuing, True)
    if story is not None:
        _tell(story, pairs, value, positive, (value >= floor) | asked, asked | ignored.index_select(0, place))
    if low_quality == "reassign":
        owned = owners(pairs.select(rescuing), value.index_select(0, rescuing), targets, len(priors))
        kept = _ascending(len(pairs), best[enough & ~of_rescued], rescuing.index_select(0, owned))
    else:
        # Below the floor the list is not complete, and its best pair may not be the prior's.
        kept = best[enough | (of_rescued & (best_value >= floor))]
    matched, matched_value = pairs.select(kept), value.index_select(0, kept)
    if low_quality == "keep_argmax":
        rest = pairs.select(best[of_rescued & (best_value < floor)])
        found = _most_similar_box(rest, priors, targets, measure)
        matched, matched_value = _merged((matched, matched_value), found, len(priors))
    return Matches(matched, matched_value, ignored.view(targets.batch_size, len(priors)), pairs.select(asked))


def _listed(
    priors: Priors, targets: Targets, floor: float, measure: Similarity, best_too: bool
) -> tuple[Pairs, Float32[Tensor, "N"]]:
    """All pairs of at least `floor`, and all that are the best of their box, among few others."""
    least = torch.full((len(targets),), floor, device=targets.boxes.device)
    if best_too:
        least = torch.minimum(least, best_nearby(priors, targets, measure))
    return similar(priors, targets, least, measure)


def _rescuing(
    pairs: Pairs, value: Float32[Tensor, "N"], targets: Targets, min_positive: float
) -> Int64[Tensor, "R"]:
    """Positions of the pairs that are the best of their box, and good enough."""
    best = segment_max(value, pairs.gt, len(targets)).index_select(0, pairs.gt)
    return ((value == best) & (value >= min_positive)).nonzero().squeeze(1)


def _with_boxes(targets: Targets, prior_count: int) -> Bool[Tensor, "N"]:
    """All priors of the images that have a box."""
    return (targets.per_image() > 0).repeat_interleave(prior_count)


def _ascending(count: int, *positions: Int64[Tensor, "_"]) -> Int64[Tensor, "M"]:
    """Positions below `count` that do not repeat, in order."""
    mask = torch.zeros(count, dtype=torch.bool, device=positions[0].device)
    for part in positions:
        mask.index_fill_(0, part, True)
    return mask.nonzero().squeeze(1)


def _most_similar_box(
    pairs: Pairs, priors: Priors, targets: Targets, measure: Similarity
) -> tuple[Pairs, Float32[Tensor, "N"]]:
    """The prior of each pair with the most similar box of the image, of equal ones the lowest row."""
    counts = targets.per_image()
    image = targets.image.index_select(0, pairs.gt)
    lengths = counts.index_select(0, image)
    first = (counts.cumsum(0) - counts).index_select(0, image)

    def part(piece: slice) -> tuple[Tensor, ...]:
        gt = concatenated_ranges(first[piece], lengths[piece])
        row = torch.repeat_interleave(lengths[piece], output_size=len(gt))
        prior = pairs.prior[piece].index_select(0, row)
        value = measure(take_boxes(targets.boxes, gt), take_boxes(priors.boxes, prior))
        winner = first_by_priority(value, row, len(lengths[piece]), gt).nonzero().squeeze(1)
        return gt.index_select(0, winner), prior.index_select(0, winner), value.index_select(0, winner)

    gt, prior, value = in_pieces(lengths, part)
    return Pairs(gt, prior), value


def _merged(
    matches: tuple[Pairs, Float32[Tensor, "N"]], others: tuple[Pairs, Float32[Tensor, "M"]], prior_count: int
) -> tuple[Pairs, Float32[Tensor, "K"]]:
    """One list, ordered by box, then prior, of an ordered one and a short one; none is in both."""
    (pairs, value), (other_pairs, other_value) = matches, others
    if not len(other_pairs):
        return matches
    keys = pairs.gt * prior_count + pairs.prior
    other_keys, order = (other_pairs.gt * prior_count + other_pairs.prior).sort()
    slots = torch.searchsorted(keys, other_keys) + torch.arange(len(order), device=order.device)
    is_other = torch.zeros(len(keys) + len(order), dtype=torch.bool, device=order.device)
    is_other.index_fill_(0, slots, True)

    def joined(values: Tensor, other_values: Tensor) -> Tensor:
        result = values.new_empty(len(is_other))
        result[~is_other], result[is_other] = values, other_values.index_select(0, order)
        return result

    both = Pairs(joined(pairs.gt, other_pairs.gt), joined(pairs.prior, other_pairs.prior))
    return both, joined(value, other_value)


def _tell(
    story: Story,
    pairs: Pairs,
    value: Float32[Tensor, "N"],
    positive: float,
    told: Bool[Tensor, "N"],
    kept: Bool[Tensor, "N"],
) -> None:
    """Name the candidates `told`, and of these the ones not `kept` as below the threshold."""
    if not story.active:
        return
    story.candidates(pairs.select(told), value[told], torch.full_like(value[told], positive))
    story.keep(kept[told], otherwise="below_threshold")
