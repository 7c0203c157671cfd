"""What `explain=True` tells."""

import torch
from every_assigner import one_level_priors

from boxmatch.assign import NearbyGrid
from boxmatch.assign.story import Story
from boxmatch.structures import REASONS, Assignment, Pairs, Targets

TARGETS = Targets.from_lists([[[0, 0, 8, 8], [0, 0, 16, 16]]], [[0, 1]])


def pairs(*listed: tuple[int, int]) -> Pairs:
    gt, prior = torch.tensor(listed, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return Pairs(gt, prior)


def test_each_step_drops_some_and_the_end_tells_the_rest():
    story = Story(True)
    score = torch.tensor([0.9, 0.1, 0.8, 0.3, 0.7])
    story.candidates(pairs((0, 0), (0, 1), (0, 2), (1, 0), (1, 3)), score, torch.full((5,), 0.2))
    story.keep(torch.tensor([True, False, True, True, True]), otherwise="below_threshold")
    story.keep(torch.tensor([True, False, True, True]), otherwise="outside")
    assignment = Assignment.hard(pairs((0, 0)), TARGETS, 4)
    assignment.ignored[0, 3] = True
    told = story.finish(assignment)
    reasons = [REASONS[number] for number in told.reason.tolist()]
    assert reasons == ["kept", "below_threshold", "outside", "lost_to_gt", "ignored"]
    assert told.counts()["kept"] == 1
    assert torch.equal(told.score, score)
    assert str(told).startswith("5 candidate pairs: 1 kept")
    assert told.of(1).pairs.prior.tolist() == [0, 3]


def test_what_a_rule_rescued_is_kept_although_it_was_dropped_or_no_candidate():
    story = Story(True)
    story.candidates(pairs((0, 1), (1, 2)))
    story.keep(torch.tensor([False, True]), otherwise="not_topk")
    told = story.finish(Assignment.hard(pairs((0, 0), (0, 1)), TARGETS, 4))
    assert list(zip(told.pairs.gt.tolist(), told.pairs.prior.tolist())) == [(0, 0), (0, 1), (1, 2)]
    assert [REASONS[number] for number in told.reason.tolist()] == ["kept", "kept", "lost_to_gt"]
    assert told.score.isnan().all()


def test_a_rule_that_tells_nothing_still_shows_what_was_kept():
    told = Story(True).finish(Assignment.hard(pairs((1, 3)), TARGETS, 4))
    assert (told.pairs.gt.tolist(), told.reason.tolist()) == ([1], [0])


def test_only_a_call_that_asks_gets_an_explanation_and_ignore_regions_keep_its_rows():
    priors = one_level_priors(4, 4, 8, [(8, 8)])
    region = Targets.from_lists([[[20, 20, 30, 30], [0, 0, 8, 8]]], [[0, 1]], [[True, False]])
    assert NearbyGrid()(priors, region).explanation is None
    told = NearbyGrid()(priors, region, explain=True).explanation
    assert told is not None
    assert set(told.pairs.gt.tolist()) == {1}
