"""The memory bound of assigners: what a box decides by itself is worked out some boxes at a time."""

from collections.abc import Callable

from jaxtyping import Int64
from torch import Tensor

from ..spatial.pieces import in_pieces
from ..structures import Pairs, Targets
from .story import Story


def piecewise(
    targets: Targets,
    lengths: Int64[Tensor, "G"],
    function: Callable[[Targets], tuple[Pairs, tuple[Tensor, ...]]],
    story: Story,
) -> tuple[Pairs, tuple[Tensor, ...]]:
    """Call `function` for consecutive boxes, with no more than a budget of pairs in work, and join the lists.

    For the steps of a rule that look at one box alone: candidates, score, selection. They list many pairs and
    keep few; only those few are in memory for all boxes at once. A call that is to be explained is worked out
    in one piece.

    Args:
        targets: boxes of the whole batch.
        lengths: candidates that each box may bring, such as `Priors.count_inside`; only the memory depends on
            it.
        function: takes some rows of the targets (with the batch's images) and returns pairs that count from
            the first of these rows, with any values of each pair.
        story: of the call.

    Returns:
        Pairs that index the rows of `targets`, and the joined values.
    """
    if story.active:
        return function(targets)

    def part(piece: slice) -> tuple[Tensor, ...]:
        pairs, values = function(targets.select(piece))
        return pairs.gt + piece.start if piece.start else pairs.gt, pairs.prior, *values

    gt, prior, *values = in_pieces(lengths, part, cached=True)
    return Pairs(gt, prior), tuple(values)
