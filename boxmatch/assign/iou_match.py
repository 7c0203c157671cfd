"""Matching by thresholds on the similarity: all of Max-IoU, and how other rules begin."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from ..boxes import take_boxes
from ..priors import Priors
from ..segments import budget_slices, concatenated_ranges, first_by_priority, segment_max
from ..spatial.pieces import in_pieces
from ..structures import Pairs, Targets
from .measures import Similarity, hold
from .similarity import SimilarityName, as_similarity, best_nearby, similar
from .story import Story
from .take import places

LowQuality = Literal["reassign", "keep_argmax", "off"]
"""What happens to the priors that are most similar to a box, of all priors (all of them, where several are).

* reassign: they are matched to that box, even if another is more similar. A prior that is the best of several
  boxes goes to the one it is most similar to, of equal ones to the lowest row.
* keep_argmax: they are matched, however similar they are, each to the box it is most similar to.
* off: nothing.
"""


BOXES_AT_ONCE = 2**11
"""Boxes of whole images worked on at once; results do not depend on it, memory does."""


@dataclass(frozen=True)
class Matches:
    """Which prior was matched to which box.

    Args:
        pairs: matched pairs, ordered by box, then prior; of one image no prior twice.
        similarity: of each pair.
        ignored: priors that are neither matched nor background.
        listed: the pairs that the boxes asked for, and perhaps others.
        asked: which of these they asked for: those that reach the upper threshold, and the rescued.
    """

    pairs: Pairs
    similarity: Float32[Tensor, "N"]
    ignored: Bool[Tensor, "B P"]
    listed: Pairs
    asked: Bool[Tensor, "M"]

    @property
    def candidates(self) -> Pairs:
        """What the boxes asked for, before each prior was given to one."""
        return self.listed.select(self.asked)


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
        low_quality: what becomes of the best priors of each box, if their similarity to it is above 0 and at
            least `min_positive`.
        similarity: a name or a measure.
        story: told of every pair that reaches the lower of the thresholds, and of the best of each box.
    """
    measure = as_similarity(similarity)
    low, high = negative if isinstance(negative, tuple) else (0.0, negative)

    def match(part: Targets) -> Matches:
        return _match(priors, part, (low, high, positive), low_quality, min_positive, measure, story)

    if len(targets) <= BOXES_AT_ONCE or (story is not None and story.active):
        return match(targets)
    counts = targets.per_image()
    ends, parts = [0, *counts.cumsum(0).tolist()], []
    # Some images at a time: of the pairs that are listed, only those that matter stay in memory.
    for images in budget_slices(counts, BOXES_AT_ONCE):
        part = targets.select(slice(ends[images.start], ends[images.stop]))
        part = replace(part, image=part.image - images.start, batch_size=images.stop - images.start)
        parts.append(_counted_from(ends[images.start], match(part)))
    return _joined(parts)


def _counted_from(first: int, matches: Matches) -> Matches:
    """The same matches of boxes that are numbered from `first`, and no pairs but those."""
    pairs, candidates = (
        Pairs(pairs.gt + first, pairs.prior) for pairs in (matches.pairs, matches.candidates)
    )
    asked = torch.ones_like(candidates.gt, dtype=torch.bool)
    return replace(matches, pairs=pairs, listed=candidates, asked=asked)


def _joined(parts: list[Matches]) -> Matches:
    """The matches of all images, from those of consecutive ones."""
    return Matches(
        pairs=_one_after_the_other([part.pairs for part in parts]),
        similarity=torch.cat([part.similarity for part in parts]),
        ignored=torch.cat([part.ignored for part in parts]),
        listed=_one_after_the_other([part.listed for part in parts]),
        asked=torch.cat([part.asked for part in parts]),
    )


def _one_after_the_other(lists: list[Pairs]) -> Pairs:
    return Pairs(torch.cat([pairs.gt for pairs in lists]), torch.cat([pairs.prior for pairs in lists]))


def _match(
    priors: Priors,
    targets: Targets,
    thresholds: tuple[float, float, float],
    low_quality: LowQuality,
    min_positive: float,
    measure: Similarity,
    story: Story | None,
) -> Matches:
    """`iou_matches` in one piece; the thresholds are low, high and positive."""
    low, high, positive = thresholds
    floor = low or high
    listed = _list(priors, targets, floor, measure, best_from=None if low_quality == "off" else min_positive)
    ignored = _ignored(listed, low, high, positive, targets, len(priors))
    reassign = low_quality == "reassign"
    kept = _reassigned(listed, positive) if reassign else _reaching(listed, positive, floor)
    pairs, value = listed.pairs.select(kept), listed.value.index_select(0, kept)
    if low_quality == "keep_argmax":
        # Below the floor the list is not complete, and its best pair may not be the prior's.
        unknown = listed.best.index_select(0, _rows(listed.is_rescued & (listed.best_value < floor)))
        found = _most_similar_box(listed.pairs.select(unknown), priors, targets, measure)
        pairs, value = _merged((pairs, value), found, len(priors))
    asked = (listed.value >= positive).index_fill_(0, listed.rescuing, True)
    if story is not None and story.active:
        told = asked | (listed.value >= floor)
        threshold = torch.full_like(listed.value[told], positive)
        story.candidates(listed.pairs.select(told), listed.value[told], threshold)
        story.keep((asked | ignored[listed.place])[told], otherwise="below_threshold")
    return Matches(pairs, value, ignored.view(targets.batch_size, len(priors)), listed.pairs, asked)


@dataclass(frozen=True)
class _Listed:
    """The pairs that matter, and positions among them; a place is the number of a prior of an image.

    Args:
        value: similarity of each pair.
        place: of each pair's prior.
        places: how many there are.
        best: one pair per listed prior, that of the greatest similarity.
        best_value: its similarity.
        best_place: its place.
        rescuing: the pairs that are the best of their box, and good enough.
        is_rescued: whether the prior of each `best` is that of a rescuing pair.
    """

    pairs: Pairs
    value: Float32[Tensor, "N"]
    place: Int64[Tensor, "N"]
    places: int
    best: Int64[Tensor, "M"]
    best_value: Float32[Tensor, "M"]
    best_place: Int64[Tensor, "M"]
    rescuing: Int64[Tensor, "R"]
    is_rescued: Bool[Tensor, "M"]


def _list(
    priors: Priors, targets: Targets, floor: float, measure: Similarity, best_from: float | None
) -> _Listed:
    """All pairs of at least `floor`, and the best pairs of each box wherever they are, among few others.

    Args:
        best_from: similarity from which on the best pairs of a box rescue their priors; None if none does.
    """
    least = torch.full((len(targets),), floor, device=targets.boxes.device)
    if best_from is not None:
        least = torch.minimum(least, best_nearby(priors, targets, measure))
    pairs, value = similar(priors, targets, least, measure)
    place, count = places(pairs, targets, len(priors)), targets.batch_size * len(priors)
    best = _rows(first_by_priority(value, place, count, pairs.gt))
    best_value, best_place = value.index_select(0, best), place.index_select(0, best)
    rescuing, is_rescued = best[:0], torch.zeros_like(best, dtype=torch.bool)
    if best_from is not None:
        greatest = segment_max(value, pairs.gt, len(targets))
        greatest.masked_fill_(greatest < best_from, torch.inf)
        rescuing = _rows(value == greatest.index_select(0, pairs.gt))
        rescued = torch.zeros(count, dtype=torch.bool, device=place.device)
        rescued.index_fill_(0, place.index_select(0, rescuing), True)
        is_rescued = rescued.index_select(0, best_place)
    return _Listed(pairs, value, place, count, best, best_value, best_place, rescuing, is_rescued)


def _ignored(
    listed: _Listed, low: float, high: float, positive: float, targets: Targets, prior_count: int
) -> Bool[Tensor, "P"]:
    """Of all places, those of the priors that are neither matched nor background."""
    value, place = listed.best_value, listed.best_place
    if low:
        ignored = (targets.per_image() > 0).repeat_interleave(prior_count)
        ignored.index_fill_(0, place.index_select(0, _rows(value >= low)), False)
    else:
        ignored = torch.zeros(listed.places, dtype=torch.bool, device=place.device)
    if high < positive:
        ignored.index_fill_(0, place.index_select(0, _rows((value >= high) & (value < positive))), True)
    return ignored.index_fill_(0, listed.place.index_select(0, listed.rescuing), False)


def _reassigned(listed: _Listed, positive: float) -> Int64[Tensor, "K"]:
    """Positions of the matched pairs where rescued priors go to the box they are the best of."""
    value, place = (values.index_select(0, listed.rescuing) for values in (listed.value, listed.place))
    gt = listed.pairs.gt.index_select(0, listed.rescuing)
    owned = _rows(first_by_priority(value, place, listed.places, gt))
    others = _rows((listed.best_value >= positive) & ~listed.is_rescued)
    kept = torch.zeros_like(listed.value, dtype=torch.bool)
    kept.index_fill_(0, listed.rescuing.index_select(0, owned), True)
    return _rows(kept.index_fill_(0, listed.best.index_select(0, others), True))


def _reaching(listed: _Listed, positive: float, floor: float) -> Int64[Tensor, "K"]:
    """Positions of the best pairs that are good enough, or rescued with a list that is complete."""
    rescued = listed.is_rescued & (listed.best_value >= floor)
    return listed.best.index_select(0, _rows(rescued | (listed.best_value >= positive)))


def _rows(mask: Bool[Tensor, "N"]) -> Int64[Tensor, "M"]:
    return mask.nonzero().squeeze(1)


def _most_similar_box(
    pairs: Pairs, priors: Priors, targets: Targets, measure: Similarity
) -> tuple[Pairs, Float32[Tensor, "N"]]:
    """The prior of each pair with the most similar box of the image, of equal ones the lowest row."""
    counts = targets.per_image()
    image = targets.image.index_select(0, pairs.gt)
    lengths = counts.index_select(0, image)
    first = (counts.cumsum(0) - counts).index_select(0, image)
    boxes, others = hold(targets.boxes), hold(priors.boxes.index_select(0, pairs.prior))

    def part(piece: slice) -> tuple[Tensor, ...]:
        gt = concatenated_ranges(first[piece], lengths[piece])
        row = torch.repeat_interleave(lengths[piece], output_size=len(gt))
        value = measure.of_held(take_boxes(boxes, gt), take_boxes(others[piece], row))
        winner = _rows(first_by_priority(value, row, len(lengths[piece]), gt))
        return gt.index_select(0, winner), value.index_select(0, winner)

    # Every image here has a box, so every row a winner.
    gt, value = in_pieces(lengths, part, cached=True)
    return Pairs(gt, pairs.prior), value


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

    own_slots = _rows(~is_other)

    def joined(values: Tensor, other_values: Tensor) -> Tensor:
        result = values.new_empty(len(is_other)).index_copy_(0, own_slots, values)
        return result.index_copy_(0, slots, other_values.index_select(0, order))

    both = Pairs(joined(pairs.gt, other_pairs.gt), joined(pairs.prior, other_pairs.prior))
    return both, joined(value, other_value)
