"""Dense forms of the assigners that look at predictions.

Letters: M boxes of the picture, P priors, C classes, V priors that some box may have.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    logsigmoid,
    one_hot,
    softplus,
)
from torchvision.ops import complete_box_iou, generalized_box_iou, generalized_box_iou_loss

from boxmatch.assign import (
    OTA,
    PAA,
    AutoAssign,
    DualWeight,
    DynamicATSS,
    DynamicSoftLabel,
    SimOTA,
    TaskAligned,
)
from boxmatch.assign.boundary import split_by_mixture
from boxmatch.bench.dense_picture import (
    Matched,
    Picture,
    best_of_each_prior,
    center_offset,
    class_scores,
    distance_matrix,
    inside_matrix,
    iou_matrix,
    lowest,
    near_center,
    predicted_iou_matrix,
)
from boxmatch.bench.dense_priors import nearest_of_each_level

LEAST_IOU, LEAST_MASS = torch.finfo(torch.float32).eps, 1e-8
"""In the logarithms of OTA; the second is that of its SinkhornDistance."""


def dynamic_atss(assigner: DynamicATSS, picture: Picture) -> Matched:
    """The distances and two IoUs of all pairs; candidates are gathered from them level by level."""
    iou, predicted = iou_matrix(picture), predicted_iou_matrix(picture)
    candidates = nearest_of_each_level(picture, assigner.topk)
    first, second = iou.gather(1, candidates), predicted.gather(1, candidates)
    threshold = first.mean(1) + second.mean(1) + first.std(1) + second.std(1)
    chosen = torch.zeros_like(iou, dtype=torch.bool)
    chosen.scatter_(1, candidates, first + second >= threshold[:, None])
    return best_of_each_prior(iou + predicted, chosen & inside_matrix(picture, assigner.inside_margin))


def task_aligned(assigner: TaskAligned, picture: Picture) -> Matched:
    """Probability, CIoU and alignment of all pairs."""
    assert picture.predicted is not None
    overlap = complete_box_iou(picture.boxes, picture.predicted).clamp(min=0)
    alignment = class_scores(picture) ** assigner.alpha * overlap**assigner.beta * inside_matrix(picture)
    values, places = alignment.topk(min(assigner.topk, alignment.shape[1]))
    selected = torch.zeros_like(alignment, dtype=torch.bool).scatter_(1, places, values > 0)
    matched = best_of_each_prior(overlap, selected)
    kept = torch.zeros_like(selected)
    kept[matched.gt, matched.prior] = True
    best = (alignment * kept).amax(1)
    score = alignment[matched.gt, matched.prior] / best[matched.gt] * (overlap * kept).amax(1)[matched.gt]
    return Matched(matched.gt, matched.prior, score)


def sim_ota(assigner: SimOTA, picture: Picture) -> Matched:
    """The cost of all classes of all pairs of the priors near some box."""
    assert picture.logits is not None
    near = near_center(picture, assigner.center_radius)
    valid = near.any(0).nonzero().squeeze(1)
    scores = picture.logits[valid].sigmoid()
    if picture.quality is not None:
        scores = scores * picture.quality[valid].sigmoid()[:, None]
    wanted = one_hot(picture.labels, scores.shape[1]).float()[:, None].expand(-1, len(valid), -1)
    class_cost = binary_cross_entropy(scores.sqrt().expand_as(wanted), wanted, reduction="none").sum(2)
    iou = predicted_iou_matrix(picture)[:, valid]
    cost = class_cost - assigner.iou_weight * (iou + 1e-8).log()
    return _dynamic_k(cost, iou, near[:, valid], valid, assigner.candidate_topk)


def dynamic_soft_label(assigner: DynamicSoftLabel, picture: Picture) -> Matched:
    """The cost of all classes of all pairs of the priors inside some box."""
    assert picture.logits is not None
    inside = inside_matrix(picture)
    valid = inside.any(0).nonzero().squeeze(1)
    logits, iou = picture.logits[valid], predicted_iou_matrix(picture)[:, valid]
    wanted = one_hot(picture.labels, logits.shape[1]).float()[:, None] * iou[..., None]  # (M, V, C)
    logits = logits.expand_as(wanted)
    bce = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    class_cost = (bce * (wanted - logits.sigmoid()).square()).sum(2)
    distance = center_offset(picture)[:, valid].square().sum(2).sqrt() / picture.priors.stride[valid]
    cost = class_cost - assigner.iou_weight * (iou + 1e-7).log() + 10 ** (distance - assigner.center_radius)
    return _dynamic_k(cost, iou, inside[:, valid], valid, assigner.topk)


def _dynamic_k(
    cost: Float[Tensor, "M V"],
    iou: Float[Tensor, "M V"],
    allowed: Bool[Tensor, "M V"],
    valid: Int64[Tensor, "V"],
    topk: int,
) -> Matched:
    """As many of the lowest costs of each box as its best IoUs add up to; a contested prior takes the lowest.

    Of all its boxes, also those that did not ask for it.
    """
    cost = cost.masked_fill(~allowed, torch.inf)
    best = (iou * allowed).topk(min(topk, len(valid))).values
    selected = lowest(cost, best.double().sum(1).floor().long().clamp(min=1))
    contested = selected.sum(0) > 1
    rivals = torch.where(contested, allowed & selected.any(0), selected)
    matched = best_of_each_prior(-cost, rivals)
    return Matched(matched.gt, valid[matched.prior])


def ota(assigner: OTA, picture: Picture) -> Matched:
    """Sinkhorn's iterations on the cost of all boxes, and the background, with all priors; float64."""
    assert picture.logits is not None
    allowed = near_center(picture, assigner.center_radius) & (distance_matrix(picture).amin(2) > 0.01)
    iou = predicted_iou_matrix(picture)
    logits = picture.logits.double()
    negative = 0.75 * logits.sigmoid().square() * softplus(logits)  # (P, C)
    positive = 0.25 * (1 - logits.sigmoid()).square() * softplus(-logits)
    cost = (negative.sum(1)[:, None] - negative + positive)[:, picture.labels].T
    cost = cost - assigner.iou_weight * iou.double().clamp(min=LEAST_IOU).log() + 1e6 * ~allowed
    cost = torch.cat((cost, negative.sum(1)[None]))  # the background last
    k = (iou * allowed).topk(min(assigner.topk, iou.shape[1])).values.double().sum(1).floor().clamp(min=1)
    k = k * allowed.any(1)
    mu = (torch.cat((k, (iou.shape[1] - k.sum())[None].clamp(min=LEAST_MASS))) + LEAST_MASS).log()
    row, column = torch.zeros_like(mu), cost.new_zeros(cost.shape[1])
    nu = torch.full_like(column, 1 + LEAST_MASS).log()
    price = -cost / assigner.epsilon
    for _ in range(assigner.iterations):
        column = nu - (price + row[:, None]).logsumexp(0)
        row = mu - (price + column).logsumexp(1)
    plan = price + row[:, None] + column
    share = (plan - plan.amax(1, keepdim=True)).float()
    share[:-1].masked_fill_(~allowed, -torch.inf)
    taken = allowed & (share[:-1] >= share[-1])
    return best_of_each_prior(share[:-1], taken)


def paa(assigner: PAA, picture: Picture) -> Matched:
    """The IoU of all pairs, the loss of all priors; box by box the lowest of each level and a mixture."""
    assert picture.logits is not None and picture.predicted is not None
    iou = iou_matrix(picture)
    best, gt = iou.max(0)
    highest = iou.amax(1, keepdim=True)
    matched = (best >= assigner.positive) | ((iou == highest) & (highest > 0)).any(0)
    wanted = one_hot(picture.labels[gt], picture.logits.shape[1]).float()
    p = picture.logits.sigmoid()
    focal = wanted * 0.25 * (1 - p).square() * -logsigmoid(picture.logits)
    focal = focal + (1 - wanted) * 0.75 * p.square() * -logsigmoid(-picture.logits)
    giou = generalized_box_iou_loss(picture.predicted, picture.boxes[gt], eps=1e-7)
    cost = torch.where(matched, focal.sum(1) + giou, torch.inf)
    found = []
    for box in range(len(picture.boxes)):
        own, start = [], 0
        for level in picture.priors.levels:
            places = ((gt == box) & matched)[start : start + len(level)].nonzero().squeeze(1) + start
            own.append(places[cost[places].topk(min(assigner.topk, len(places)), largest=False).indices])
            start += len(level)
        places = torch.cat(own).sort().values
        width = sum(min(assigner.topk, len(level)) for level in picture.priors.levels)
        split = split_by_mixture(cost[places], torch.zeros_like(places), 1, width, assigner.boundary)
        found.append(places[split.positive])
    prior = torch.cat(found)
    return Matched(gt[prior], prior)


def dual_weight(assigner: DualWeight, picture: Picture) -> Matched:
    """GIoU, joint score and centre prior of all pairs."""
    assert picture.predicted is not None
    inside = inside_matrix(picture)
    giou = generalized_box_iou(picture.boxes, picture.predicted)
    joint = class_scores(picture) * ((giou - 1) * assigner.beta).exp()
    offset = center_offset(picture) / picture.priors.stride[:, None]
    prior = (offset.square().sum(2) / (-2 * assigner.sigma**2)).exp() * inside
    total = ((joint * assigner.mu_den).exp() * joint * prior).sum(1, keepdim=True).clamp(min=1e-12)
    weight = (joint * assigner.mu_num).exp() * joint * prior / total
    iou = predicted_iou_matrix(picture)
    y = (1 - iou.square()) / (1 - assigner.iou_low**2)
    low, high = _range_of_each_box(y, inside)
    curve = torch.where(iou < assigner.iou_low, 1.0, (y - low) / (high.clamp(max=1) - low + 1e-12))
    return _all_inside(picture, inside, weight, curve)


def _range_of_each_box(
    values: Float[Tensor, "M P"], inside: Bool[Tensor, "M P"]
) -> tuple[Float[Tensor, "M 1"], Float[Tensor, "M 1"]]:
    low = values.masked_fill(~inside, torch.inf).amin(1, keepdim=True)
    return low, values.masked_fill(~inside, -torch.inf).amax(1, keepdim=True)


def _all_inside(
    picture: Picture,
    inside: Bool[Tensor, "M P"],
    weight: Float[Tensor, "M P"],
    negative: Float[Tensor, "M P"],
) -> Matched:
    """Every pair inside a box; of negative weights for one prior and class the least."""
    assert picture.logits is not None
    table = torch.ones_like(picture.logits.T)
    rows = picture.labels[:, None].expand_as(inside)
    table.scatter_reduce_(0, rows, negative.masked_fill(~inside, 1), "amin")
    gt, prior = inside.nonzero().unbind(1)
    return Matched(gt, prior, weight[gt, prior].detach(), None, table[picture.labels[gt], prior])


def auto_assign(assigner: AutoAssign, picture: Picture) -> Matched:
    """GIoU, joint confidence and centre prior of all pairs, float32, with the graph."""
    assert picture.predicted is not None
    inside = inside_matrix(picture)
    giou = generalized_box_iou(picture.boxes, picture.predicted)
    joint = class_scores(picture) * ((giou - 1) * assigner.beta).exp()
    offset = center_offset(picture) / picture.priors.stride[:, None] - assigner.mean[picture.labels][:, None]
    prior = (offset / assigner.sigma[picture.labels][:, None]).square().sum(2).div(-2).exp() * inside
    share = (joint * assigner.sharpness).exp() * prior
    weight = share / share.sum(1, keepdim=True).clamp(min=1e-12)
    best = predicted_iou_matrix(picture).amax(0)
    raw = (1 / (1 - best).clamp(min=1e-12)).expand_as(weight)
    low, high = _range_of_each_box(raw, inside)
    return _all_inside(picture, inside, weight, 1 - (raw - low + 1e-12) / (high - low + 1e-12))
