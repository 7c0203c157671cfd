"""What holds for every assigner, whatever its rule."""

import pytest
import torch
from every_assigner import ANCHORS, EVERY_ASSIGNER, assign, random_batch, random_boxes, two_level_priors

from boxmatch.assign import Assigner
from boxmatch.priors import AnchorGrid
from boxmatch.spatial import pieces
from boxmatch.structures import Assignment, Targets

PRIORS = two_level_priors()


@pytest.fixture(params=EVERY_ASSIGNER)
def assigner(request: pytest.FixtureRequest) -> Assigner:
    """Each assigner in turn."""
    return EVERY_ASSIGNER[request.param]()


def as_lists(assignment: Assignment) -> tuple:
    """All values of an assignment, to be compared bit for bit."""
    return (
        assignment.pairs.gt.tolist(),
        assignment.pairs.prior.tolist(),
        assignment.weight.tolist(),
        assignment.score.tolist(),
        assignment.neg_weight.tolist(),
        assignment.ignored.tolist(),
    )


def one_image(boxes: torch.Tensor, labels: torch.Tensor) -> Targets:
    """A batch of one."""
    return Targets.from_lists([boxes], [labels])


def test_pairs_are_ordered_by_box_and_none_occurs_twice(assigner):
    pairs = assign(assigner, PRIORS, random_batch()).pairs
    assert len(pairs) > 0
    assert (pairs.gt.diff() >= 0).all()
    assert len(set(zip(pairs.gt.tolist(), pairs.prior.tolist()))) == len(pairs)


def test_a_batch_is_its_images_one_by_one(assigner):
    batch = random_batch()
    whole = assign(assigner, PRIORS, batch).gt_index()
    for image in range(batch.batch_size):
        rows = (batch.image == image).nonzero().squeeze(1)
        alone = assign(assigner, PRIORS, one_image(batch.boxes[rows], batch.labels[rows])).gt_index()[0]
        first = int(rows[0]) if len(rows) else 0
        assert torch.equal(whole[image], torch.where(alone >= 0, alone + first, alone))


def test_the_order_of_the_images_does_not_matter(assigner):
    sizes, order = (5, 0, 9), [2, 0, 1]
    boxes = [random_boxes(size, seed) for seed, size in enumerate(sizes)]
    labels = [torch.arange(size) for size in sizes]
    straight = Targets.from_lists(boxes, labels)
    mixed = Targets.from_lists([boxes[i] for i in order], [labels[i] for i in order])
    owner, mixed_owner = (
        assign(assigner, PRIORS, straight).gt_index(),
        assign(assigner, PRIORS, mixed).gt_index(),
    )
    for place, image in enumerate(order):
        assert torch.equal(boxes_of(straight, owner[image]), boxes_of(mixed, mixed_owner[place]))


def test_the_order_of_the_boxes_does_not_matter(assigner):
    boxes, labels = random_boxes(12, 5), torch.arange(12)
    straight = one_image(boxes, labels)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    mixed = one_image(boxes[order], labels[order])
    owner, mixed_owner = (
        assign(assigner, PRIORS, straight).gt_index()[0],
        assign(assigner, PRIORS, mixed).gt_index()[0],
    )
    assert torch.equal(boxes_of(straight, owner), boxes_of(mixed, mixed_owner))


def boxes_of(targets: Targets, owner: torch.Tensor) -> torch.Tensor:
    """The box that each prior learns, zeros for background."""
    padded = torch.cat([targets.boxes, torch.zeros(2, 4)])
    return padded[owner]  # -1 and -2 meet the two rows of zeros


def test_of_equal_boxes_the_lowest_row_learns(assigner):
    box = torch.tensor([[20.0, 12.0, 52.0, 44.0]])
    twice = assign(assigner, PRIORS, one_image(box.repeat(3, 1), torch.tensor([4, 4, 4])))
    once = assign(assigner, PRIORS, one_image(box, torch.tensor([4])))
    assert len(once.pairs) > 0
    assert torch.equal(twice.gt_index(), once.gt_index())


def test_an_empty_batch_and_images_without_boxes_give_background(assigner):
    for images in (0, 1, 3):
        empty = Targets.from_lists([[]] * images, [[]] * images)
        assignment = assign(assigner, PRIORS, empty)
        assert len(assignment.pairs) == 0
        assert assignment.gt_index().tolist() == [[-1] * len(PRIORS.boxes)] * images
        assert assignment.stats().background == images * len(PRIORS.boxes)


def test_boxes_outside_tiny_and_huge_are_served_or_starved_but_never_break(assigner):
    extreme = torch.tensor(
        [
            [-500.0, -500.0, -400.0, -420.0],
            [1000.0, 1000.0, 1040.0, 1020.0],
            [10.0, 10.0, 10.001, 10.001],
            [-1e4, -1e4, 1e4, 1e4],
            [0.0, 0.0, 96.0, 64.0],
            [-20.0, 30.0, 200.0, 30.5],
        ]
    )
    assignment = assign(assigner, PRIORS, one_image(extreme, torch.arange(6)))
    stats = assignment.stats()
    assert int(stats.positives[4]) > 0
    assert 2 in stats.starved.tolist()  # no prior is as small
    assert stats.total + stats.background == len(PRIORS.boxes)


def test_a_grid_of_one_cell_works(assigner):
    priors = AnchorGrid([ANCHORS[0]], (32,))([(1, 1)], "cpu")
    assignment = assign(assigner, priors, Targets.from_lists([[[0.0, 0.0, 30.0, 24.0]], []], [[0], []]))
    assert 0 in assignment.gt_index()[0].tolist()
    assert set(assignment.gt_index()[1].tolist()) == {-1}


def test_working_in_small_pieces_changes_nothing(assigner, monkeypatch):
    batch = random_batch((30, 0, 25, 1), seed=9)
    whole = as_lists(assign(assigner, PRIORS, batch))
    monkeypatch.setattr(pieces, "PAIR_BUDGET", 50)
    assert as_lists(assign(assigner, PRIORS, batch)) == whole


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(assigner, dtype):
    plain = as_lists(assign(assigner, PRIORS, random_batch()))
    with torch.autocast("cpu", dtype=dtype):
        assert as_lists(assign(assigner, PRIORS, random_batch())) == plain


def test_the_same_call_gives_the_same_answer_again(assigner):
    assert as_lists(assign(assigner, PRIORS, random_batch())) == as_lists(
        assign(assigner, PRIORS, random_batch())
    )


def test_background_inside_an_ignore_region_takes_no_part_and_objects_are_matched_as_without_it(assigner):
    boxes, labels = random_boxes(6, 2), torch.arange(6)
    region = torch.tensor([[0.0, 0.0, 48.0, 64.0]])
    plain = assign(assigner, PRIORS, one_image(boxes, labels)).gt_index()[0]
    # The region comes second: rows after it must keep their own numbers.
    mixed = Targets.from_lists(
        [torch.cat([boxes[:1], region, boxes[1:]])],
        [torch.cat([labels[:1], torch.tensor([0]), labels[1:]])],
        [[False, True, *[False] * 5]],
    )
    assignment = assign(assigner, PRIORS, mixed)
    owner = assignment.gt_index()[0]
    assert torch.equal(owner >= 0, plain >= 0)
    assert torch.equal(owner[owner >= 0], torch.where(plain > 0, plain + 1, plain)[plain >= 0])
    x1, y1, x2, y2 = PRIORS.boxes.unbind(1)
    width = (x2.clamp(max=48) - x1.clamp(min=0)).clamp(min=0)
    height = (y2.clamp(max=64) - y1.clamp(min=0)).clamp(min=0)
    covered = width * height >= 0.5 * (x2 - x1) * (y2 - y1)
    assert torch.equal(owner == -2, covered & (plain < 0))
    assert 1 not in assignment.stats().starved.tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_the_same_pairs(assigner):
    batch = random_batch((40, 0, 60), seed=4)
    on_gpu = assign(assigner, AnchorGrid(ANCHORS, (8, 16))([(8, 12), (4, 6)], "cuda"), batch.to("cuda"))
    assert torch.equal(on_gpu.gt_index().cpu(), assign(assigner, PRIORS, batch).gt_index())
