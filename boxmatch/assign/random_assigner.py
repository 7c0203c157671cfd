"""The control of every comparison: as many positives per box as another method gives, drawn at random."""

from collections.abc import Mapping

from jaxtyping import Int64
from torch import Tensor

from ..priors import Priors
from ..segments import segment_lengths, segment_topk
from ..structures import Assignment, Predictions, Targets
from .base import Assigner
from .draw import Draw
from .pick import random_score
from .story import Story


class RandomAssigner(Assigner):
    """Inside the box → a random number → as many as another method gives → the greater number owns the prior.

    A box that loses a prior draws the next one; when the priors inside it are used up, it takes the nearest
    free ones. So every box has exactly as many positives as with the other method, unless that gives a prior
    to several boxes and there are not enough priors for all.

    The draw hangs on the seed, the box, its label and the prior alone: the same batch gives the same result
    in any order and on any device. What the other method leaves out of training (`ignored`) is background
    here.

    Args:
        like: the method whose number of positives is copied.
        seed: of the draw.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.
    """

    def __init__(self, like: Assigner, *, seed: int = 0, ignore_threshold: float = 0.5) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        self.like = like
        self.seed = seed
        # That of a class for all other methods.
        self.uses_predictions = like.uses_predictions  # type: ignore[misc]

    @property
    def conformance_exceptions(self) -> Mapping[str, str]:
        """Those of the other method, and what drawing itself breaks."""
        return {
            **self.like.conformance_exceptions,
            "turned_picture": "it draws from the coordinates, which x and y then share otherwise",
        }

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        given = self.like.assign(priors, targets, predictions, Story(False)).pairs
        wanted = segment_lengths(given.gt, len(targets))
        self._tell(story, priors, targets, wanted)
        draw = Draw(priors, targets, wanted, self.seed)
        while draw.add_inside():
            pass
        reach = 4
        # Once it has reached the last prior, a box that still lacks some cannot be helped.
        while len(draw.short) and reach < 4 * len(priors):
            draw.add_nearest(reach)
            reach *= 4
        return Assignment.hard(draw.pairs(), targets, len(priors), levels=priors.levels)

    def _tell(self, story: Story, priors: Priors, targets: Targets, wanted: Int64[Tensor, "G"]) -> None:
        if not story.active:
            return
        pairs = priors.inside(targets)
        score = random_score(pairs, targets, self.seed)
        story.candidates(pairs, score)
        story.keep(segment_topk(score, pairs.gt, len(targets), wanted), otherwise="not_topk")

    def extra_repr(self) -> str:
        return f"seed={self.seed}"
