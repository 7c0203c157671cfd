"""Random problems for the loops: coordinates are quarters of a pixel, so that both precisions hold them."""

import torch
from hypothesis import strategies as st

from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Predictions, Targets

Box = list[float]


@st.composite
def grids(draw: st.DrawFn) -> tuple:
    """One or two levels from 1 × 1 to 5 × 4 cells: anchors (one to three per cell), strides, sizes."""
    strides = draw(st.sampled_from([(8,), (8, 16), (4, 32)]))
    sizes = [(draw(st.integers(1, 5)), draw(st.integers(1, 4))) for _ in strides]
    sides = st.sampled_from([3, 8, 10, 16, 20, 45, 90])  # few, so that shapes are equally good at times
    anchors = [
        draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=3)) for _ in strides
    ]  # levels may differ in number
    return anchors, strides, sizes


@st.composite
def batches(draw: st.DrawFn) -> list[list[Box]]:
    """Up to three images with up to five boxes inside, across and outside the picture, or twice."""
    quarter = st.integers(-40, 240).map(lambda n: n / 4)
    side = st.one_of(st.integers(1, 8), st.integers(8, 600), st.sampled_from([32, 64, 80])).map(
        lambda n: n / 4
    )
    corner = st.one_of(quarter, st.sampled_from([0.0, 4.0, 8.0, 16.0]))
    images = []
    for _ in range(draw(st.integers(0, 3))):
        drawn = draw(st.lists(st.tuples(corner, corner, side, side), max_size=5))
        boxes = [[x, y, x + w, y + h] for x, y, w, h in drawn]
        if boxes and draw(st.booleans()):
            boxes.append(boxes[0])
        images.append(boxes)
    return images


def make_priors(grid: tuple) -> Priors:
    """Outside the strategy, because the type checker draws random numbers of its own."""
    anchors, strides, sizes = grid
    return AnchorGrid(anchors, strides)(sizes, "cpu")


def make_targets(images: list[list[Box]], classes: int = 3) -> Targets:
    """Labels in turn."""
    return Targets.from_lists(images, [[row % classes for row in range(len(boxes))] for boxes in images])


def make_predictions(priors: Priors, targets: Targets, seed: int) -> Predictions:
    """Each prior predicts a box of its image or itself, a little off; some anything at all."""
    random = torch.Generator().manual_seed(seed)
    shape = (targets.batch_size, len(priors))
    boxes = priors.boxes.expand(*shape, 4).clone()
    for image in range(targets.batch_size):
        own = targets.boxes[targets.image == image]
        if len(own):
            pick = torch.randint(len(own), shape[1:], generator=random)
            wanted = torch.rand(shape[1:], generator=random) < 0.6
            boxes[image, wanted] = own[pick[wanted]]
    boxes += torch.randint(-3, 4, (*shape, 4), generator=random)
    wild = torch.rand(shape, generator=random) < 0.1
    boxes[wild] = torch.randint(-300, 300, (int(wild.sum()), 4), generator=random).float()
    return Predictions(
        logits=torch.zeros(*shape, 3), deltas=torch.zeros(*shape, 4), boxes=(boxes * 4).round() / 4
    )


def iou(box: Box, other: Box) -> float:
    """Of two xyxy boxes; one with swapped corners overlaps nothing."""
    width = max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
    height = max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
    areas = [max(0.0, x2 - x1) * max(0.0, y2 - y1) for x1, y1, x2, y2 in (box, other)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0
