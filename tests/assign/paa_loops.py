"""PAA one box, one prior and one candidate at a time, in float64, from the description of the method.

Decisions that float32 may take differently are not compared: `Outcome.clear` says where every number of a box
is away from its threshold.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise

from boxmatch.priors import Priors
from boxmatch.structures import Predictions, Targets

# What rounding to float32 may move: an IoU, a cost, and what the mixture makes of a cost.
IOU_ROUNDING = 2e-6
COST_ROUNDING = 5e-6
FIT_ROUNDING = 1e-4


@dataclass
class Outcome:
    """What became of one box."""

    positive: set[int] = field(default_factory=set)
    ignored: set[int] = field(default_factory=set)
    candidates: set[int] = field(default_factory=set)
    clear: bool = True


@dataclass(frozen=True)
class Options:
    """The arguments of `PAA`."""

    topk: int = 9
    positive: float = 0.1
    boundary: str = "c"
    class_cost: str = "focal"
    box_cost: str = "giou"
    alpha: float = 0.25
    gamma: float = 2.0
    inclusive_pixels: bool = False


def paa(priors: Priors, targets: Targets, predictions: Predictions, options: Options) -> list[Outcome]:
    """The outcome of every row of the targets."""
    outcomes = [Outcome() for _ in range(len(targets))]
    for image in range(targets.batch_size):
        rows = [row for row in range(len(targets)) if int(targets.image[row]) == image]
        for row, matched in _matches(priors, targets, rows, options, outcomes).items():
            costs = {
                prior: _cost(prior, row, image, priors, targets, predictions, options) for prior in matched
            }
            outcome = outcomes[row]
            for level in sorted(set(priors.level.tolist())):
                here = [(costs[prior], prior) for prior in matched if int(priors.level[prior]) == level]
                here.sort()
                outcome.candidates |= {prior for _, prior in here[: options.topk]}
                if len(here) > options.topk:
                    gap = here[options.topk][0] - here[options.topk - 1][0]
                    outcome.clear &= gap > COST_ROUNDING
            _split(sorted((costs[prior], prior) for prior in outcome.candidates), options.boundary, outcome)
    return outcomes


def _matches(priors, targets, rows, options, outcomes) -> dict[int, list[int]]:
    """The priors whose own best box each row is, where they match or a box has nothing better."""
    boxes = priors.boxes.double().tolist()
    gts = {row: targets.boxes[row].double().tolist() for row in rows}
    iou = {row: [_iou(gts[row], box) for box in boxes] for row in rows}
    best = {row: max(iou[row]) for row in rows}
    matched: dict[int, list[int]] = {row: [] for row in rows}
    for prior in range(len(boxes)):
        if not rows:
            break
        owner = max(rows, key=lambda row: (iou[row][prior], -row))
        rescued = any(best[row] > 0 and iou[row][prior] == best[row] for row in rows)
        if iou[owner][prior] >= options.positive or rescued:
            matched[owner].append(prior)
        for row in rows:
            near = abs(iou[row][prior] - options.positive) < IOU_ROUNDING
            rival = row != owner and 0 < iou[owner][prior] - iou[row][prior] < IOU_ROUNDING
            second = 0 < best[row] - iou[row][prior] < IOU_ROUNDING and best[row] < options.positive
            if near or rival or second:
                for other in rows:
                    outcomes[other].clear = False
    return matched


def _iou(box: list[float], other: list[float]) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    inter = max(width, 0.0) * max(height, 0.0)
    union = _area(box) + _area(other) - inter
    return inter / union if union > 0 else 0.0


def _area(box: list[float]) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _cost(prior, row, image, priors, targets, predictions, options) -> float:
    label = int(targets.labels[row])
    cost = 0.0
    for number, logit in enumerate(predictions.logits[image, prior].double().tolist()):
        cost += _class_loss(logit, number == label, options)
    gt = targets.boxes[row].double().tolist()
    if options.box_cost == "giou":
        return cost + _giou_loss(
            predictions.boxes[image, prior].double().tolist(), gt, options.inclusive_pixels
        )
    x1, y1, x2, y2 = priors.boxes[prior].double().tolist()
    width, height = x2 - x1, y2 - y1
    wanted = (
        ((gt[0] + gt[2]) / 2 - (x1 + x2) / 2) / width,
        ((gt[1] + gt[3]) / 2 - (y1 + y2) / 2) / height,
        math.log((gt[2] - gt[0]) / width),
        math.log((gt[3] - gt[1]) / height),
    )
    deltas = predictions.deltas[image, prior].double().tolist()
    return cost + sum(abs(delta - one) for delta, one in zip(deltas, wanted))


def _class_loss(logit: float, is_object: bool, options: Options) -> float:
    signed = -logit if is_object else logit
    cross_entropy = max(signed, 0) + math.log1p(math.exp(-abs(signed)))
    if options.class_cost == "bce":
        return cross_entropy
    wrong = 1 / (1 + math.exp(-signed))
    balance = options.alpha if is_object else 1 - options.alpha
    return balance * wrong**options.gamma * cross_entropy


def _giou_loss(box: list[float], gt: list[float], inclusive_pixels: bool) -> float:
    if inclusive_pixels:
        box, gt = ([edges[0], edges[1], edges[2] - 1, edges[3] - 1] for edges in (box, gt))
    box, gt = ([e[0], e[1], max(e[0], e[2]), max(e[1], e[3])] for e in (box, gt))
    width = min(box[2], gt[2]) - max(box[0], gt[0])
    height = min(box[3], gt[3]) - max(box[1], gt[1])
    inter = width * height if width > 0 and height > 0 else 0.0
    union = _area(box) + _area(gt) - inter + 1e-7
    hull = _area([min(box[0], gt[0]), min(box[1], gt[1]), max(box[2], gt[2]), max(box[3], gt[3])]) + 1e-7
    return 1 - (inter / union - (hull - union) / hull)


def _split(costs: list[tuple[float, int]], boundary: str, outcome: Outcome) -> None:
    """Fill in what the mixture makes of the ascending costs of a box."""
    numbers, priors = [cost for cost, _ in costs], [prior for _, prior in costs]
    if len(numbers) < 2:
        outcome.positive = set(priors)
        return
    component, density, margin = _mixture(numbers)
    foreground = [place for place in range(len(numbers)) if component[place] == 0]
    background = [place for place in range(len(numbers)) if component[place] == 1]
    outcome.clear &= margin > FIT_ROUNDING
    outcome.clear &= all(b - a > COST_ROUNDING for a, b in pairwise(numbers))
    if not foreground:
        outcome.positive = set(priors)
        return
    peak, sharp = _peak(foreground, density)
    outcome.clear &= sharp
    outcome.positive = set(priors[: peak + 1])
    if boundary == "a":
        outcome.positive = {priors[place] for place in foreground}
    elif boundary == "b":
        begin, sharp = _peak(background, density) if background else (len(numbers), True)
        outcome.clear &= sharp
        outcome.ignored = set(priors[peak + 1 : begin])
    elif boundary == "d":
        outcome.ignored = {priors[place] for place in foreground if place > peak}


def _peak(places: list[int], density: list[float]) -> tuple[int, bool]:
    """The densest place, and whether no other comes near."""
    best = max(places, key=lambda place: (density[place], -place))
    return best, all(density[best] - density[place] > FIT_ROUNDING for place in places if place != best)


def _mixture(numbers: list[float]) -> tuple[list[int], list[float], float]:
    """Component and log-density of each number, and how clear the components and the stop were."""
    weights, means, variances = [0.5, 0.5], [min(numbers), max(numbers)], [1.0, 1.0]
    last, margin = -math.inf, math.inf

    def expectation() -> tuple[list[list[float]], list[float]]:
        joint = [
            [
                math.log(weights[k])
                - 0.5 * (math.log(2 * math.pi) + math.log(variances[k]) + (x - means[k]) ** 2 / variances[k])
                for k in (0, 1)
            ]
            for x in numbers
        ]
        return joint, [max(pair) + math.log(sum(math.exp(one - max(pair)) for one in pair)) for pair in joint]

    for _ in range(100):
        joint, density = expectation()
        share = [[math.exp(one - z) for one in pair] for pair, z in zip(joint, density)]
        bound = sum(density) / len(numbers)
        for k in (0, 1):
            size = sum(pair[k] for pair in share) + 10 * 2.0**-52
            means[k] = sum(pair[k] * x for pair, x in zip(share, numbers)) / size
            spread = sum(pair[k] * (x - means[k]) ** 2 for pair, x in zip(share, numbers)) / size
            variances[k], weights[k] = spread + 1e-6, size
        weights = [size / sum(weights) for size in weights]
        change, last = abs(bound - last), bound
        # Of the bound, whose numbers are averages, rounding moves less than of a single one.
        margin = min(margin, 100 * abs(change - 1e-3))
        if change < 1e-3:
            break
    joint, density = expectation()
    margin = min(margin, *(abs(first - second) for first, second in joint))
    return [int(second > first) for first, second in joint], density, margin
