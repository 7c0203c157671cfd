"""The rule of FCOS, box by box and point by point in double precision, written from the paper."""

from boxmatch.priors import Priors
from boxmatch.structures import Targets


def fates(
    priors: Priors, targets: Targets, radius: float | None, ranges: list[tuple[float, float]]
) -> dict[tuple[int, int], str]:
    """What becomes of every pair whose prior's centre lies in the box, before rivals are compared."""
    fate = {}
    for gt, (x1, y1, x2, y2) in enumerate(targets.boxes.tolist()):
        for prior, (x, y) in enumerate(priors.centers.tolist()):
            if not (x1 < x < x2 and y1 < y < y2):
                continue
            reach = float("inf") if radius is None else radius * float(priors.stride[prior])
            low, high = ranges[int(priors.level[prior])]
            if abs(x - (x1 + x2) / 2) >= reach or abs(y - (y1 + y2) / 2) >= reach:
                fate[gt, prior] = "outside"
            elif low <= max(x - x1, y - y1, x2 - x, y2 - y) <= high:
                fate[gt, prior] = "candidate"
            else:
                fate[gt, prior] = "wrong_level"
    return fate


def owners(priors: Priors, targets: Targets, fate: dict[tuple[int, int], str]) -> list[list[int]]:
    """Row of the box that each prior of each image learns, -1 for none: the smallest, then the first."""
    index = [[-1] * len(priors) for _ in range(targets.batch_size)]
    boxes, images = targets.boxes.tolist(), targets.image.tolist()
    area = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes]
    for (gt, prior), verdict in sorted(fate.items()):
        row = index[images[gt]]
        if verdict == "candidate" and (row[prior] < 0 or area[gt] < area[row[prior]]):
            row[prior] = gt
    return index
