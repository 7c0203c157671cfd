"""Max-IoU once more, prior by prior and box by box, straight from the specification.

The similarities come from outside, as a table: whether they are right is another test's question, and with
them given no decision depends on rounding.
"""

BACKGROUND, IGNORED = -1, -2

Table = list[list[float]]


def max_iou(
    table: Table,
    positive: float,
    negative: float | tuple[float, float],
    low_quality: str,
    min_positive: float,
) -> list[int]:
    """The box of each prior of one image, or background or ignored.

    Args:
        table: similarity of each box (rows) to each prior (columns); at least one box.
    """
    low, high = negative if isinstance(negative, tuple) else (0.0, negative)
    gts, priors = range(len(table)), range(len(table[0]))
    owner = [IGNORED for _ in priors]
    argmax = [0 for _ in priors]
    for prior in priors:
        for gt in gts:
            if table[gt][prior] > table[argmax[prior]][prior]:
                argmax[prior] = gt
        most = max(table[argmax[prior]][prior], 0.0)
        if low <= most < high:
            owner[prior] = BACKGROUND
        if most >= positive:
            owner[prior] = argmax[prior]
    if low_quality == "off":
        return owner
    rescuers: dict[int, list[int]] = {}
    for gt in gts:
        best = max(table[gt])
        if best > 0 and best >= min_positive:
            for prior in priors:
                if table[gt][prior] == best:
                    rescuers.setdefault(prior, []).append(gt)
    for prior, boxes in rescuers.items():
        if low_quality == "keep_argmax":
            owner[prior] = argmax[prior]
        else:
            owner[prior] = min(boxes, key=lambda gt, prior=prior: (-table[gt][prior], gt))
    return owner


def grid_max_iou(
    table: Table, in_cell: list[list[bool]], positive: float, negative: float, min_positive: float
) -> list[int]:
    """The box of each prior of one image, or background or ignored, where boxes choose from their cells only.

    Args:
        table: IoU of each box (rows) with each prior (columns); at least one box.
        in_cell: whether the box's centre lies in the prior's cell.
    """
    gts, priors = range(len(table)), range(len(table[0]))
    owner = [BACKGROUND if max(table[gt][prior] for gt in gts) <= negative else IGNORED for prior in priors]
    rescuers: dict[int, list[int]] = {}
    for gt in gts:
        best = max(table[gt][prior] for prior in priors if in_cell[gt][prior])
        if best > min_positive:
            for prior in priors:
                if in_cell[gt][prior] and table[gt][prior] == best:
                    rescuers.setdefault(prior, []).append(gt)
    for prior in priors:
        boxes = rescuers.get(prior) or [
            gt for gt in gts if in_cell[gt][prior] and table[gt][prior] > positive
        ]
        if boxes:
            owner[prior] = min(boxes, key=lambda gt, prior=prior: (-table[gt][prior], gt))
    return owner
