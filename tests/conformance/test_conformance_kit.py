"""The conformance kit finds the faults it is there for, and says what to do."""

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from boxmatch.assign import NearbyGrid, TaskAligned
from boxmatch.conformance import PROPERTIES, NotApplicable, Subject, check
from boxmatch.conformance.scenes import LAYOUTS, random_scene, turned_places
from boxmatch.priors import Priors
from boxmatch.spatial import pieces
from boxmatch.structures import Assignment, Pairs, Predictions, Targets


def chosen(assignment: Assignment, rows: torch.Tensor) -> Assignment:
    """Some rows of an assignment, in any order."""
    return replace(
        assignment,
        pairs=assignment.pairs.select(rows),
        weight=assignment.weight[rows],
        score=assignment.score[rows],
        neg_weight=assignment.neg_weight[rows],
    )


class Faulty:
    """NearbyGrid by hand, without the base's help, with a flaw added to its result."""

    uses_predictions: ClassVar[bool] = False

    def __call__(
        self, priors: Priors, targets: Targets, predictions: Predictions | None = None
    ) -> Assignment:
        return self.flaw(NearbyGrid()(priors, targets), targets)

    def flaw(self, good: Assignment, targets: Targets) -> Assignment:
        raise NotImplementedError


class Backwards(Faulty):
    def flaw(self, good, targets):
        return chosen(good, torch.arange(len(good.pairs) - 1, -1, -1))


class Twice(Faulty):
    def flaw(self, good, targets):
        return chosen(good, torch.arange(len(good.pairs)).repeat_interleave(2))


class NotANumber(Faulty):
    def flaw(self, good, targets):
        return replace(good, weight=good.weight / 0 * 0)


class AboveOne(Faulty):
    def flaw(self, good, targets):
        return replace(good, score=good.score + 0.1)


class LearnsIgnored(Faulty):
    def flaw(self, good, targets):
        return replace(good, ignored=~good.ignored)


class ForgetsCandidates(Faulty):
    def flaw(self, good, targets):
        return replace(good, candidates=good.candidates.select(slice_of(good.candidates, 1)))


class LargestOfTheBatch(Faulty):
    def flaw(self, good, targets):
        if not len(targets):
            return good
        return replace(good, weight=good.weight * targets.boxes.abs().max() / 200)


class FirstPicture(Faulty):
    def flaw(self, good, targets):
        return replace(good, weight=good.weight + (good.image == 0))


class OneTooMany(Faulty):
    def flaw(self, good, targets):
        ignored = good.ignored.clone()
        ignored[:, -1:] |= ~torch.isin(torch.tensor([[ignored.shape[1] - 1]]), good.pairs.prior)
        return replace(good, ignored=ignored)


class Draws(Faulty):
    def flaw(self, good, targets):
        return replace(good, weight=torch.rand_like(good.weight))


class Overwrites(Faulty):
    def flaw(self, good, targets):
        targets.boxes.clamp_(0, 90)
        return good


class KnowsTheBudget(Faulty):
    def flaw(self, good, targets):
        return replace(good, weight=good.weight * (1 if pieces.PAIR_BUDGET > 1000 else 2))


class HalfPrecision(Faulty):
    def flaw(self, good, targets):
        return replace(good, weight=(good.weight[:, None] * 0.3337 @ torch.ones(1, 1)).squeeze(1).float())


class KnowsTheThreads(Faulty):
    def flaw(self, good, targets):
        return replace(good, weight=good.weight * torch.get_num_threads())


class FailsWithoutBoxes(Faulty):
    def flaw(self, good, targets):
        return replace(good, weight=good.weight / targets.boxes.max())


class FailsInACrowd(Faulty):
    def flaw(self, good, targets):
        if len(targets) > 1000:
            raise MemoryError("too many")
        return good


class LowestRow(Faulty):
    """Contested priors go to the lowest row, whatever the scores."""

    def flaw(self, good, targets):
        candidates = good.candidates
        place = targets.image[candidates.gt] * good.ignored.shape[1] + candidates.prior
        first = torch.full((good.ignored.numel(),), len(targets)).scatter_reduce(
            0, place, candidates.gt, "amin"
        )
        pairs = candidates.select(first[place] == candidates.gt)
        return Assignment.hard(pairs, targets, good.ignored.shape[1], candidates=candidates)


class LastCopy(Faulty):
    """Of equal boxes the last one learns."""

    def flaw(self, good, targets):
        same = (targets.boxes[:, None] == targets.boxes).all(2) & (targets.image[:, None] == targets.image)
        last = (same * torch.arange(len(targets))).amax(1) if len(targets) else targets.labels
        pairs = Pairs(last[good.pairs.gt], good.pairs.prior)
        return Assignment.hard(pairs, targets, good.ignored.shape[1])


class MindsRegions(Faulty):
    """Takes an ignore region for an object."""

    def flaw(self, good, targets):
        return NearbyGrid()(
            random_scene(LAYOUTS[0], (6,)).priors, replace(targets, ignore=torch.zeros_like(targets.ignore))
        )


class WidthOnly(Faulty):
    def flaw(self, good, targets):
        width = targets.boxes[:, 2] - targets.boxes[:, 0]
        return replace(good, weight=good.weight * width[good.pairs.gt])


class RefusesGrids(Faulty):
    """Takes two levels of anchors only, and does not say so."""

    def __call__(self, priors, targets, predictions=None):
        if len(priors.levels) != 2 or priors.levels[0].anchors != 3:
            raise ValueError("no")
        return NearbyGrid()(priors, targets)


class NeedsTwentyPriors(Faulty):
    def __call__(self, priors, targets, predictions=None):
        if len(priors) < 20:
            raise IndexError("selected index k out of range")
        return NearbyGrid()(priors, targets)


class Unchecked(TaskAligned):
    """Looks at no input."""

    def _check(self, priors, targets, predictions):
        pass


class TakesNothing(TaskAligned):
    """Takes missing predictions for a picture without any."""

    def forward(self, priors, targets, predictions=None, *, explain=False):
        if predictions is None:
            return Assignment.hard(Pairs(targets.labels[:0], targets.labels[:0]), targets, len(priors))
        return super().forward(priors, targets, predictions, explain=explain)


class KeepsTheGraph(TaskAligned):
    """Lets gradients through without saying so."""

    def forward(self, priors, targets, predictions=None, *, explain=False):
        found = super().forward(priors, targets, predictions, explain=explain)
        return replace(found, weight=found.weight + 0 * predictions.logits.sum())


class TellsLies(TaskAligned):
    """Explains another result than its own."""

    def forward(self, priors, targets, predictions=None, *, explain=False):
        found = super().forward(priors, targets, predictions, explain=explain)
        return chosen(found, slice_of(found.pairs, 1)) if explain else found


class WantsTheGraph(TaskAligned):
    """Says that it keeps a graph and has none."""

    keeps_graph: ClassVar[bool] = True

    def forward(self, priors, targets, predictions=None, *, explain=False):
        with torch.no_grad():
            return super().forward(priors, targets, predictions, explain=explain)


class Doubles(TaskAligned):
    """Takes half precision for something else."""

    def forward(self, priors, targets, predictions=None, *, explain=False):
        found = super().forward(priors, targets, predictions, explain=explain)
        return replace(found, weight=found.weight * (2 if predictions.logits.dtype == torch.bfloat16 else 1))


class CannotDoWithoutQuality(TaskAligned):
    def assign(self, priors, targets, predictions, story):
        return super().assign(priors, targets, replace(predictions, quality=predictions.quality + 0), story)


def slice_of(pairs: Pairs, first: int) -> torch.Tensor:
    """Rows from `first` on."""
    return torch.arange(first, len(pairs))


FAULTS: list[tuple[Any, str, str]] = [
    (Backwards, "form", "expected pairs in the order of their box"),
    (Twice, "form", "more than once"),
    (NotANumber, "form", r"expected finite numbers in 0 .. inf in weight, got nan"),
    (AboveOne, "form", r"expected finite numbers in 0 .. 1.0 in score, got 1.1"),
    (LearnsIgnored, "form", "expected a prior that learns to take part"),
    (ForgetsCandidates, "candidates", "expected every pair among the candidates"),
    (TellsLies, "explanation", "with explain=True expected"),
    (KeepsTheGraph, "gradient", "expected a result without a graph"),
    (WantsTheGraph, "gradient", "expected a result with a graph"),
    (LowestRow, "order_of_boxes", "boxes backwards: prior"),
    (FirstPicture, "order_of_images", "pictures in another order: prior"),
    (LargestOfTheBatch, "image_by_image", "picture 2 alone, then in a batch: prior"),
    (OneTooMany, "empty_image", "expected background without a box, got 1 ignored"),
    (FailsWithoutBoxes, "empty_batch", "max"),
    (LastCopy, "duplicates", r"got \[\[\], \[\], \["),
    (MindsRegions, "ignore_regions", "with a region over the left half: prior"),
    (WidthOnly, "turned_picture", "picture 0 on its side: prior"),
    (NeedsTwentyPriors, "one_prior", "k out of range"),
    (NeedsTwentyPriors, "few_priors", "k out of range"),
    (FailsInACrowd, "crowd", "too many"),
    (RefusesGrids, "kinds_of_priors", "an error that says what was expected, got 'no'"),
    (Unchecked, "non_finite_predictions", "expected a ValueError, got a result"),
    (TakesNothing, "missing_predictions", "no predictions: expected a ValueError, got a result"),
    (CannotDoWithoutQuality, "without_quality", "NoneType"),
    (KnowsTheBudget, "small_pieces", r"in small pieces: weight\[0\]: expected 1.0, got 2.0"),
    (HalfPrecision, "autocast", r"under autocast to torch.bfloat16: weight\[0\]"),
    (Doubles, "half_precision", r"with bfloat16 predictions: weight\[0\]"),
    (Draws, "repeatable", r"called again: weight\[0\]"),
    (Overwrites, "inputs_untouched", "got other boxes; copy before writing"),
    (KnowsTheThreads, "two_threads", r"with two threads: weight\[0\]: expected 1.0, got 2.0"),
]


@pytest.mark.parametrize(("faulty", "name", "said"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_fault_is_found_and_named(faulty: Any, name: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        PROPERTIES[name](faulty)


def test_every_property_that_can_fail_here_has_a_planted_fault():
    # The first three differ from `form` and `few_priors` in their boxes and grids alone.
    quiet = {"narrow_grids", "boxes_outside", "extreme_sizes", "gpu"}
    assert {name for _, name, _ in FAULTS} | quiet == set(PROPERTIES)


def test_one_of_ours_passes_and_each_property_gives_one_verdict():
    verdicts = list(check(TaskAligned))
    assert [verdict.name for verdict in verdicts] == list(PROPERTIES)
    assert {verdict.name: verdict.message for verdict in verdicts if verdict.outcome == "FAIL"} == {}
    assert all(verdict.message for verdict in verdicts if verdict.outcome == "not applicable")


def test_an_error_of_the_assigner_is_a_verdict():
    verdicts = {verdict.name: verdict for verdict in check(FailsInACrowd)}
    assert verdicts["crowd"].outcome == "FAIL"
    assert verdicts["crowd"].message.startswith("expected no error, got MemoryError: too many (")
    assert __file__ in verdicts["crowd"].message
    assert verdicts["form"].outcome == "pass"


def test_an_exception_is_shown_with_its_reason_and_must_name_a_property():
    subject = Subject(LastCopy, exceptions={"duplicates": "the last copy wins in the paper"})
    verdicts = {verdict.name: verdict for verdict in check(subject)}
    assert verdicts["duplicates"].outcome == "not applicable"
    assert verdicts["duplicates"].message == "the last copy wins in the paper"
    with pytest.raises(ValueError, match=r"expected exceptions among form, .*, got duplicate$"):
        list(check(Subject(LastCopy, exceptions={"duplicate": "misspelt"})))


def test_an_assigner_may_name_its_own_exceptions():
    with pytest.raises(NotApplicable, match="draws from the coordinates"):
        PROPERTIES["turned_picture"](lambda: NearbyGrid(filter_by_max_iou=False))


def test_an_assigner_that_takes_no_kind_of_priors_is_refused_with_its_own_words():
    def refuse(priors, targets, predictions=None):
        raise ValueError("expected priors in three dimensions")

    with pytest.raises(ValueError, match="two levels of points: expected priors in three dimensions"):
        list(check(lambda: refuse))


def test_a_turned_scene_turned_again_is_the_scene():
    scene = random_scene(LAYOUTS[0], (4,))
    turned = LAYOUTS[0].priors(64, 96, turned=True)
    place = turned_places(scene.priors)
    swapped = scene.priors.boxes[place][:, [1, 0, 3, 2]]
    assert torch.equal(swapped, turned.boxes)
    assert torch.equal(place[turned_places(turned)], torch.arange(len(place)))
