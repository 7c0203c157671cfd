"""The loss of dual weighting against its dense form, its normalisers, and what may not break it."""

from dataclasses import replace

import pytest
import torch
from dual_weight_dense import dual_weight_losses, negative_map, scores
from jaxtyping import TypeCheckError
from soft_scene import crowded_targets, half_trained, leaves, points, single

from boxmatch.assign import DualWeight
from boxmatch.losses import DualWeightLoss, background, dual_weight, soft_pairs
from boxmatch.structures import Assignment, Predictions, Targets

POINTS = points()
NAMES = ("class_positive", "box", "class_negative")


def assigned(targets: Targets, predictions: Predictions, **options) -> Assignment:
    """By the default rule; assigners work in float32."""
    return DualWeight(**options)(POINTS, targets, single(predictions))


def values(terms: dict[str, torch.Tensor]) -> list[float]:
    """The three numbers."""
    return [float(terms[name].detach()) for name in NAMES]


def terms_and_slopes(terms: dict, predictions: Predictions) -> tuple[list[float], list[torch.Tensor]]:
    """Values, and the gradient of the sum with weights 1, 2, 3."""
    total = sum((rank + 1) * terms[name] for rank, name in enumerate(NAMES))
    return values(terms), torch.autograd.grad(total, leaves(predictions))


@pytest.mark.parametrize("quality", [True, False])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"neg_gamma": 0.0},
        {"neg_gamma": 1.5},
        {"class_weight": 1.0, "loc_weight": 3.0, "neg_weight": 0.5},
    ],
)
def test_it_equals_the_dense_form(quality, ignore, options):
    targets = crowded_targets(ignore)
    predictions = half_trained(POINTS, targets, quality=quality)
    assignment = assigned(targets, predictions)
    assert bool(assignment.ignored.any()) == ignore
    loss = DualWeightLoss(**options)
    terms, slopes = terms_and_slopes(loss(POINTS, targets, predictions, assignment), predictions)
    expected = dual_weight_losses(targets, predictions, assignment, **options)
    wanted, wanted_slopes = terms_and_slopes(expected, predictions)
    assert terms == pytest.approx(wanted, rel=1e-6)
    for slope, wanted_slope in zip(slopes, wanted_slopes, strict=True):
        torch.testing.assert_close(slope, wanted_slope, rtol=1e-6, atol=1e-9)
    small = single(predictions)
    rounded, rounded_slopes = terms_and_slopes(loss(POINTS, targets, small, assignment), small)
    assert rounded == pytest.approx(wanted, rel=1e-5)
    for slope, wanted_slope in zip(rounded_slopes, wanted_slopes, strict=True):
        torch.testing.assert_close(slope.double(), wanted_slope, rtol=1e-4, atol=1e-7)


def test_gradients_are_those_of_differences():
    targets = crowded_targets()
    predictions = half_trained(POINTS, targets)
    assignment = assigned(targets, predictions)
    loss = DualWeightLoss(neg_gamma=1.5)

    def total(logits: torch.Tensor, boxes: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
        varied = replace(predictions, logits=logits, boxes=boxes, quality=quality)
        return sum(loss(POINTS, targets, varied, assignment).values())

    assert torch.autograd.gradcheck(total, leaves(predictions), fast_mode=True)


def test_working_in_pieces_changes_nothing(monkeypatch):
    targets = crowded_targets(ignore=True)
    predictions = half_trained(POINTS, targets)
    assignment = assigned(targets, predictions)
    whole = terms_and_slopes(DualWeightLoss()(POINTS, targets, predictions, assignment), predictions)
    monkeypatch.setattr(soft_pairs, "_PAIRS_AT_ONCE", 7)
    monkeypatch.setattr(background, "_TABLE_BUDGET", {"cpu": 1})
    monkeypatch.setattr(background, "_BLOCK_BUDGET", {"cpu": 20})
    pieces = terms_and_slopes(DualWeightLoss()(POINTS, targets, predictions, assignment), predictions)
    assert pieces[0] == pytest.approx(whole[0], rel=1e-12)
    for slope, wanted in zip(pieces[1], whole[1], strict=True):
        torch.testing.assert_close(slope, wanted, rtol=1e-9, atol=1e-15)


def test_the_order_of_the_boxes_does_not_matter():
    targets = crowded_targets()
    predictions = half_trained(POINTS, targets)
    turned = targets.select(torch.tensor([3, 1, 2, 0, 5, 4]))
    straight = DualWeightLoss()(POINTS, targets, predictions, assigned(targets, predictions))
    backwards = DualWeightLoss()(POINTS, turned, predictions, assigned(turned, predictions))
    assert values(backwards) == pytest.approx(values(straight), rel=1e-6)
    last = [
        DualWeightLoss()(POINTS, part, predictions, assigned(part, predictions, neg_conflict="last"))
        for part in (targets, turned)
    ]
    assert values(last[0])[2] != pytest.approx(values(last[1])[2], rel=1e-3)


@pytest.mark.parametrize("loss", [DualWeightLoss(), DualWeightLoss.official()])
def test_a_batch_without_objects_keeps_every_output_in_the_graph(loss):
    targets = Targets.from_lists([[], []], [[], []])
    predictions = half_trained(POINTS, targets)
    terms = loss(POINTS, targets, predictions, assigned(targets, predictions))
    assert values(terms)[:2] == [0, 0]
    slopes = torch.autograd.grad(sum(terms.values()), leaves(predictions))
    assert slopes[0].all() and not slopes[1].any() and slopes[2].all()
    assert all(slope.isfinite().all() for slope in slopes)


def test_an_empty_batch_is_zero():
    targets = Targets.from_lists([], [])
    predictions = half_trained(POINTS, targets)
    terms = DualWeightLoss()(POINTS, targets, predictions, assigned(targets, predictions))
    assert values(terms) == [0, 0, 0]


def background_of_nothing(loss: DualWeightLoss) -> float:
    """The third term of a batch without objects."""
    targets = Targets.from_lists([[]], [[]])
    predictions = half_trained(POINTS, targets)
    return values(loss(POINTS, targets, predictions, assigned(targets, predictions)))[2]


def test_without_objects_the_running_mean_of_the_normaliser_takes_its_place():
    targets = crowded_targets()
    predictions = half_trained(POINTS, targets)
    assignment = assigned(targets, predictions)
    full, loss = background_of_nothing(DualWeightLoss.official()), DualWeightLoss()
    assert background_of_nothing(loss) == pytest.approx(full)  # nothing to remember yet
    loss(POINTS, targets, predictions, assignment)
    score = scores(predictions)
    spared = float((1 - negative_map(assignment, targets, score)).sum())
    assert spared > 2
    assert background_of_nothing(loss) == pytest.approx(full / spared)


def test_the_running_mean_follows_batches_with_objects_in_training_alone():
    loss, some = DualWeightLoss(momentum=0.75), crowded_targets()
    none = Targets.from_lists([[]], [[]])
    for spared in (8.0, 16.0):
        assert [float(n) for n in loss.normalisers(some, torch.tensor(spared))] == [6, spared]
    assert float(loss.running_negatives) == 0.75 * 8 + 0.25 * 16
    assert [float(n) for n in loss.normalisers(none, torch.tensor(0.0))] == [1, 10]
    assert float(loss.running_negatives) == 10
    loss.eval()
    loss.normalisers(some, torch.tensor(100.0))
    assert float(loss.running_negatives) == 10
    copy = DualWeightLoss()
    copy.load_state_dict(loss.state_dict())
    assert [float(n) for n in copy.normalisers(none, torch.tensor(0.0))] == [1, 10]
    assert background_of_nothing(copy) == pytest.approx(background_of_nothing(DualWeightLoss.official()) / 10)


def test_two_ranks_give_the_loss_and_gradient_of_one_with_both_batches(monkeypatch):
    both = crowded_targets()
    predictions = half_trained(POINTS, both)
    assignment = assigned(both, predictions)
    whole = terms_and_slopes(DualWeightLoss.official()(POINTS, both, predictions, assignment), predictions)
    counts: list[torch.Tensor] = []
    monkeypatch.setattr(dual_weight, "rank_count", lambda: 2)

    def run() -> list[tuple[list[float], list[torch.Tensor]]]:
        results = []
        for images in ([0], [1, 2]):  # four boxes and two
            rows = torch.isin(both.image, torch.tensor(images)).nonzero().squeeze(1)
            mine = both.select(rows)
            mine = replace(mine, image=mine.image - images[0], batch_size=len(images))
            parts = [part.detach()[images].requires_grad_() for part in leaves(predictions)]
            own = Predictions(parts[0], predictions.deltas[images], parts[1], parts[2])
            terms = DualWeightLoss.official()(POINTS, mine, own, assigned(mine, own))
            results.append(terms_and_slopes(terms, own))
        return results

    # First to learn what each rank counts, then with the mean.
    monkeypatch.setattr(dual_weight, "mean_over_ranks", lambda own: counts.append(own) or own)
    run()
    mean = torch.stack(counts).mean(0)
    monkeypatch.setattr(dual_weight, "mean_over_ranks", lambda own: mean)
    first, second = run()
    averaged = [(a + b) / 2 for a, b in zip(first[0], second[0])]
    assert averaged == pytest.approx(whole[0], rel=1e-6)
    for one, two, wanted in zip(first[1], second[1], whole[1], strict=True):
        torch.testing.assert_close(torch.cat((one, two)) / 2, wanted, rtol=1e-6, atol=1e-10)


def test_ranks_are_not_asked_in_evaluation(monkeypatch):
    monkeypatch.setattr(dual_weight, "rank_count", lambda: 2)
    monkeypatch.setattr(dual_weight, "mean_over_ranks", lambda own: pytest.fail("waited for other ranks"))
    targets = crowded_targets()
    predictions = half_trained(POINTS, targets)
    loss = DualWeightLoss().eval()
    assert len(loss(POINTS, targets, predictions, assigned(targets, predictions))) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_predictions_under_autocast_give_the_loss_within_one_percent(dtype):
    targets = crowded_targets()
    full = single(half_trained(POINTS, targets))
    half = replace(full, logits=full.logits.to(dtype), quality=full.quality.to(dtype))
    expected = DualWeightLoss()(POINTS, targets, full, DualWeight()(POINTS, targets, full))
    with torch.autocast("cpu", dtype=dtype):
        terms = DualWeightLoss()(POINTS, targets, half, DualWeight()(POINTS, targets, half))
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert values(terms) == pytest.approx(values(expected), rel=0.01)


@pytest.mark.parametrize("size", [50.0, 200.0, 1e4])
@pytest.mark.parametrize("sign", [1, -1])
def test_saturated_logits_and_boxes_without_extent_give_finite_values_and_gradients(size, sign):
    targets = crowded_targets()
    sane = single(half_trained(POINTS, targets))
    boxes = sane.boxes.detach().clone()
    boxes[:, ::2, 2:] = boxes[:, ::2, :2]
    predictions = replace(
        sane,
        logits=torch.full_like(sane.logits, sign * size).requires_grad_(),
        quality=torch.full_like(sane.quality, sign * size).requires_grad_(),
        boxes=boxes.requires_grad_(),
    )
    assignment = DualWeight()(POINTS, targets, predictions)
    terms = DualWeightLoss()(POINTS, targets, predictions, assignment)
    slopes = torch.autograd.grad(sum(terms.values()), leaves(predictions))
    assert all(bool(term.isfinite()) for term in terms.values())
    assert all(bool(slope.isfinite().all()) for slope in slopes)
    if sign > 0:  # false positives without doubt still feel a pull
        assert float(slopes[0].abs().max()) > 0


def test_ignored_priors_have_no_gradient():
    targets = crowded_targets(ignore=True)
    predictions = half_trained(POINTS, targets)
    assignment = assigned(targets, predictions)
    terms = DualWeightLoss()(POINTS, targets, predictions, assignment)
    slope = torch.autograd.grad(sum(terms.values()), predictions.logits)[0]
    assert assignment.ignored.any()
    assert not slope[assignment.ignored].any()
    assert slope[~assignment.ignored].all()


def test_presets_and_representation():
    assert DualWeightLoss.official().neg_norm_fallback == "clamp1"
    assert DualWeightLoss.paper(neg_gamma=1.0).neg_gamma == 1
    assert DualWeightLoss().neg_norm_fallback == "ema"
    assert "neg_norm_fallback='ema'" in repr(DualWeightLoss())


@pytest.mark.parametrize(
    "arguments",
    [
        {"class_weight": -1.0},
        {"loc_weight": float("nan")},
        {"neg_weight": float("inf")},
        {"neg_gamma": 0.5},
        {"momentum": 1.0},
        {"neg_norm_fallback": "none"},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises((ValueError, TypeCheckError), match="xpected"):
        DualWeightLoss(**arguments)


def test_predictions_without_boxes_and_labels_without_a_class_are_refused():
    targets = crowded_targets()
    predictions = half_trained(POINTS, targets)
    assignment = assigned(targets, predictions)
    with pytest.raises(ValueError, match="decoded boxes"):
        DualWeightLoss()(POINTS, targets, replace(predictions, boxes=None), assignment)
    with pytest.raises(ValueError, match="labels below 2"):
        DualWeightLoss()(
            POINTS, targets, replace(predictions, logits=predictions.logits[..., :2]), assignment
        )
