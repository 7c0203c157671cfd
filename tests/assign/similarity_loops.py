"""The measures of similarity once more, pair by pair in double precision, straight from the specification."""

import math

Box = list[float]


def similarity(name: str, gt: Box, other: Box) -> float:
    """Value for one ground truth and one other box."""
    return (
        {"nwd": nwd, "kld": kld, "simd": simd}[name](gt, other)
        if name in DISTANCES
        else overlap(name, gt, other)
    )


DISTANCES = ("nwd", "kld", "simd")


def parts(box: Box) -> tuple[float, float, float, float]:
    """Centre, width, height."""
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def overlap(name: str, gt: Box, other: Box) -> float:
    x, y, w, h = parts(gt)
    other_x, other_y, other_w, other_h = parts(other)
    width = max(min(gt[2], other[2]) - max(gt[0], other[0]), 0)
    height = max(min(gt[3], other[3]) - max(gt[1], other[1]), 0)
    union = w * h + other_w * other_h - width * height
    iou = width * height / union if union else 0.0
    hull_w, hull_h = max(gt[2], other[2]) - min(gt[0], other[0]), max(gt[3], other[3]) - min(gt[1], other[1])
    if name == "iou":
        return iou
    if name == "giou":
        return iou - (hull_w * hull_h - union) / (hull_w * hull_h) if hull_w * hull_h else iou
    diagonal = hull_w**2 + hull_h**2
    diou = iou - ((x - other_x) ** 2 + (y - other_y) ** 2) / diagonal if diagonal else iou
    if name == "diou":
        return diou
    v = 4 / math.pi**2 * (math.atan2(w, h) - math.atan2(other_w, other_h)) ** 2
    return diou - v * v / (1 - iou + v) if v else diou


def nwd(gt: Box, other: Box, constant: float = 12.8) -> float:
    x, y, w, h = parts(gt)
    other_x, other_y, other_w, other_h = parts(other)
    square = (x - other_x) ** 2 + (y - other_y) ** 2 + ((w - other_w) ** 2 + (h - other_h) ** 2) / 4
    return math.exp(-math.sqrt(square) / constant)


def kld(gt: Box, other: Box) -> float:
    """1 = ground truth, 2 = prior in the specification's formula; no side below 1e-6."""
    x1, y1, w1, h1 = parts(gt)
    x2, y2, w2, h2 = parts(other)
    w1, h1, w2, h2 = (max(side, 1e-6) for side in (w1, h1, w2, h2))
    shape = w2**2 / w1**2 + h2**2 / h1**2 + math.log(w1**2 / w2**2) + math.log(h1**2 / h2**2) - 2
    divergence = (shape + 4 * (x1 - x2) ** 2 / w1**2 + 4 * (y1 - y2) ** 2 / h1**2) / 2
    return 1 / (1 + divergence)


def simd(gt: Box, other: Box, m: float = 6.13, n: float = 4.59) -> float:
    """No sum of sides below 1e-6."""
    x1, y1, w1, h1 = parts(gt)
    x2, y2, w2, h2 = parts(other)
    width, height = max(w1 + w2, 1e-6), max(h1 + h2, 1e-6)
    location = math.hypot((x1 - x2) * m / width, (y1 - y2) * n / height)
    shape = math.hypot((w1 - w2) * m / width, (h1 - h2) * n / height)
    return math.exp(-(location + shape))
