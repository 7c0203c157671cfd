"""The random control: as many positives per box, drawn inside it, then the nearest."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from every_assigner import one_level_priors, random_batch, random_boxes, two_level_priors

from boxmatch.assign import (
    ATSS,
    AllGrid,
    Assigner,
    Hungarian,
    MaxIoU,
    RandomAssigner,
    SingleGrid,
    TaskAligned,
    draw,
)
from boxmatch.assign.pick import random_score
from boxmatch.assign.story import Story
from boxmatch.priors import Priors
from boxmatch.spatial import pieces
from boxmatch.structures import REASONS, Assignment, Pairs, Predictions, Targets

PRIORS = two_level_priors()


class Fixed(Assigner):
    """Asks for a number of positives for each row, whatever the boxes; may give a prior to several boxes."""

    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self.counts = counts

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        gt = torch.arange(len(targets)).repeat_interleave(torch.tensor(self.counts))
        prior = torch.cat([torch.arange(count) for count in self.counts])
        return Assignment.hard(Pairs(gt, prior), targets, len(priors))


class IgnoresAll(SingleGrid):
    """Leaves out whatever is background."""

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assignment = super().assign(priors, targets, predictions, story)
        return replace(assignment, ignored=assignment.gt_index() < 0)


def inside(priors: Priors, targets: Targets) -> set[tuple[int, int]]:
    """Pairs whose prior's centre lies in the box."""
    x, y = priors.centers.T
    x1, y1, x2, y2 = targets.boxes[:, :, None].unbind(1)
    mask = (x > x1) & (x < x2) & (y > y1) & (y < y2)
    return set(map(tuple, mask.nonzero().tolist()))


def as_set(pairs: Pairs) -> set[tuple[int, int]]:
    """The pairs without their order."""
    return set(zip(pairs.gt.tolist(), pairs.prior.tolist()))


@pytest.mark.parametrize("like", [ATSS(), AllGrid(), MaxIoU(0.4, 0.4), SingleGrid()])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_box_has_as_many_positives_as_with_the_other_method(like, seed):
    targets = random_batch((20, 0, 35, 3), seed)
    control = RandomAssigner(like, seed=seed)(PRIORS, targets)
    assert torch.equal(control.stats().positives, like(PRIORS, targets).stats().positives)
    assert not control.ignored.any()


def test_it_draws_by_the_greatest_number_among_the_priors_inside(monkeypatch):
    """In the order of their numbers, a pair holds if its prior is free and its box wants more."""
    monkeypatch.setattr(draw, "SPARE", 10_000)
    for seed in range(6):
        targets = random_batch((15, 0, 30), seed)
        like = ATSS()
        wanted = like(PRIORS, targets).stats().positives.tolist()
        pairs = PRIORS.inside(targets)
        number = random_score(pairs, targets, seed).tolist()
        expected: set[tuple[int, int]] = set()
        taken, got = set(), Counter[int]()
        for _, gt, prior in sorted(
            (-n, *pair) for n, *pair in zip(number, *map(torch.Tensor.tolist, (pairs.gt, pairs.prior)))
        ):
            place = (int(targets.image[gt]), prior)
            if place not in taken and got[gt] < wanted[gt]:
                expected.add((gt, prior))
                taken.add(place)
                got[gt] += 1
        found = as_set(RandomAssigner(like, seed=seed)(PRIORS, targets).pairs)
        assert found & inside(PRIORS, targets) == expected
        assert len(found) == sum(wanted)


@pytest.mark.parametrize("spare", [0, 3])
def test_a_short_list_of_candidates_leaves_no_box_short(spare, monkeypatch):
    monkeypatch.setattr(draw, "SPARE", spare)
    box = torch.tensor([[0.0, 0.0, 96.0, 64.0]])
    boxes = box + torch.arange(12)[:, None] / 8  # all want the same priors
    targets = Targets.from_lists([boxes], [torch.zeros(12)])
    control = RandomAssigner(Fixed([25] * 12))(PRIORS, targets)
    assert control.stats().positives.tolist() == [25] * 12
    assert as_set(control.pairs) <= inside(PRIORS, targets)


def test_a_box_without_priors_inside_takes_the_nearest():
    priors = one_level_priors(1, 5, 8, [(8, 8)])  # centres x = 4, 12, 20, 28, 36 at y = 4
    tiny = [13.0, 1.0, 15.0, 3.0]
    for count, expected in ((1, [1]), (2, [1, 2]), (3, [0, 1, 2]), (5, [0, 1, 2, 3, 4])):
        control = RandomAssigner(Fixed([count]))(priors, Targets.from_lists([[tiny]], [[0]]))
        assert control.pairs.prior.tolist() == expected


def test_the_nearest_priors_that_are_still_free_fill_what_is_missing():
    for seed in range(5):
        boxes = random_boxes(1, seed)
        targets = Targets.from_lists([boxes], [[0]])
        of_box = {prior for _, prior in inside(PRIORS, targets)}
        count = len(of_box) + 20
        control = RandomAssigner(Fixed([count]), seed=seed)(PRIORS, targets)
        distance = (PRIORS.centers.double() - (boxes[0, :2] + boxes[0, 2:]).double() / 2).square().sum(1)
        order = sorted(range(len(PRIORS)), key=lambda prior: (float(distance[prior]), prior))
        outside = [prior for prior in order if prior not in of_box][:20]
        assert control.pairs.prior.tolist() == sorted([*of_box, *outside])


def test_where_priors_do_not_suffice_all_are_given_away():
    priors = one_level_priors(2, 3, 8, [(8, 8)])
    boxes = [[0.0, 0.0, 24.0, 16.0], [0.0, 0.0, 8.0, 16.0]]
    targets = Targets.from_lists([boxes], [[0, 1]])
    shares = set()
    for seed in range(8):
        control = RandomAssigner(Fixed([6, 6]), seed=seed)(priors, targets)
        assert sorted(control.pairs.prior.tolist()) == [0, 1, 2, 3, 4, 5]
        shares.add(tuple(control.stats().positives.tolist()))
    assert len(shares) > 1


def test_every_prior_inside_is_drawn_equally_often():
    """400 pictures with 16 points in the box, 4 of them drawn: 100 ± 3 · 8.7 times each."""
    priors = one_level_priors(8, 8, 8, [(8, 8)])
    boxes = [[[16.0 + n / 100, 16.0, 48.0 + n / 100, 48.0]] for n in range(400)]
    control = RandomAssigner(Fixed([4] * 400))(priors, Targets.from_lists(boxes, [[0]] * 400))
    times = torch.bincount(control.pairs.prior, minlength=64)
    assert int((times > 0).sum()) == 16
    assert 74 <= int(times[times > 0].min()) <= int(times.max()) <= 126


def test_the_draw_changes_with_the_seed_the_box_and_its_label():
    targets = random_batch((10,))

    def drawn(targets: Targets, seed: int = 0) -> set[tuple[int, int]]:
        return as_set(RandomAssigner(Fixed([4] * 10), seed=seed)(PRIORS, targets).pairs)

    plain = drawn(targets)
    assert drawn(targets) == plain
    assert drawn(targets, seed=1) != plain
    assert drawn(replace(targets, boxes=targets.boxes + 0.01)) != plain
    assert drawn(replace(targets, labels=targets.labels + 1)) != plain


def test_what_the_other_method_ignores_is_background():
    targets = random_batch((5,))
    assert IgnoresAll()(PRIORS, targets).ignored.any()
    assert not RandomAssigner(IgnoresAll())(PRIORS, targets).ignored.any()


def test_it_reads_predictions_if_the_other_method_does():
    assert not RandomAssigner(ATSS()).uses_predictions
    assert RandomAssigner(Hungarian()).uses_predictions
    assert RandomAssigner(RandomAssigner(TaskAligned())).uses_predictions
    with pytest.raises(ValueError, match="RandomAssigner reads predictions, got None"):
        RandomAssigner(TaskAligned())(PRIORS, random_batch())


def test_the_explanation_tells_drawn_contested_and_left_over_priors():
    targets = random_batch((12, 4), 3)
    assignment = RandomAssigner(Fixed([5] * 16))(PRIORS, targets, explain=True)
    explanation = assignment.explanation
    assert explanation is not None
    told = dict(
        zip(zip(explanation.pairs.gt.tolist(), explanation.pairs.prior.tolist()), explanation.reason.tolist())
    )
    assert told.keys() == inside(PRIORS, targets) | as_set(assignment.pairs)
    by_reason = Counter(REASONS[reason] for reason in told.values())
    assert by_reason["kept"] == 80
    assert by_reason["not_topk"] > 0
    assert by_reason["lost_to_gt"] > 0


def test_small_pieces_and_grids_that_are_none_give_the_same(monkeypatch):
    targets = random_batch((20, 0, 8), 2)
    control = RandomAssigner(Fixed([9] * 28))
    whole = as_set(control(PRIORS, targets).pairs)
    assert as_set(control(Priors.from_boxes(PRIORS.boxes), targets).pairs) == whole
    monkeypatch.setattr(pieces, "PAIR_BUDGET", 50)
    assert as_set(control(PRIORS, targets).pairs) == whole
