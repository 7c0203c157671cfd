"""Properties of the result by itself."""

import torch

from ..structures import REASONS, Assignment
from .kit import NotApplicable, Subject, holds
from .outcome import first_bit_difference, value_columns
from .scenes import Scene


def check_form(assignment: Assignment, scene: Scene) -> None:
    """What must hold of every result.

    Raises:
        AssertionError: a part has a wrong shape, order, range or value.
    """
    pairs, count = assignment.pairs, len(assignment.pairs)
    pictures, priors = len(scene.pictures), len(scene.priors)
    shape = tuple(assignment.ignored.shape)
    assert shape == (pictures, priors), (
        f"expected `ignored` of shape {(pictures, priors)}, got {shape}; a row per picture"
    )
    for name, index, below in (("gt", pairs.gt, len(assignment.targets)), ("prior", pairs.prior, priors)):
        assert not count or (int(index.min()) >= 0 and int(index.max()) < below), (
            f"expected pairs.{name} in 0 .. {below - 1}, got {int(index.min())} .. {int(index.max())}"
        )
    disorder = (pairs.gt.diff() < 0).nonzero()
    assert not len(disorder), (
        f"expected pairs in the order of their box, got box {int(pairs.gt[disorder[0] + 1])} after "
        f"{int(pairs.gt[disorder[0]])}; sort by gt * len(priors) + prior"
    )
    key = (pairs.gt * priors + pairs.prior).sort().values
    twice = (key.diff() == 0).nonzero()
    assert not len(twice), (
        f"expected every pair once, got prior {int(key[twice[0]]) % priors} and box "
        f"{int(key[twice[0]]) // priors} more than once; join such pairs"
    )
    for name, values in zip(("weight", "score", "neg_weight"), value_columns(assignment)):
        assert len(values) == count, f"expected {count} values in {name}, one per pair, got {len(values)}"
        high = 1.0 if name == "score" else torch.inf
        wrong = (~(values.isfinite() & (values >= 0) & (values <= high))).nonzero()
        assert not len(wrong), (
            f"expected finite numbers in 0 .. {high} in {name}, got "
            f"{float(values[wrong[0]])} for prior {int(pairs.prior[wrong[0]])} and box "
            f"{int(pairs.gt[wrong[0]])}; look for a division by 0, a logarithm of 0 or an overflow"
        )
    both = assignment.ignored[assignment.image, pairs.prior].nonzero()
    assert not len(both), (
        f"expected a prior that learns to take part, got prior {int(pairs.prior[both[0]])} in `pairs` and in "
        "`ignored`; take learned priors out of `ignored`"
    )


@holds("pairs are ordered by box, none occurs twice, and every value is finite and in range")
def form(subject: Subject) -> None:
    """On four pictures, one of them empty."""
    scene, assignment = subject.usual
    check_form(assignment, scene)
    assert len(assignment.pairs) > 0, (
        f"expected pairs for {len(assignment.targets)} boxes on {len(scene.priors)} priors, got none; the "
        "properties below would say nothing"
    )


@holds("the candidates hold every pair")
def candidates(subject: Subject) -> None:
    """Where the assigner lists them."""
    scene, assignment = subject.usual
    if assignment.candidates is None:
        raise NotApplicable("it does not list its candidates")
    priors = len(scene.priors)
    listed = assignment.candidates.gt * priors + assignment.candidates.prior
    missing = (~torch.isin(assignment.pairs.gt * priors + assignment.pairs.prior, listed)).nonzero()
    assert not len(missing), (
        f"expected every pair among the candidates, got prior {int(assignment.pairs.prior[missing[0]])} for "
        f"box {int(assignment.pairs.gt[missing[0]])} outside; list the pairs before contested priors chose"
    )


@holds("asked to explain itself it decides the same, and the explanation ends in the result")
def explanation(subject: Subject) -> None:
    """The kept candidates are the pairs; a candidate below its threshold has a lower score."""
    if not subject.explains:
        raise NotApplicable("it cannot be asked to explain itself")
    scene, plain = subject.usual
    told = subject.call(scene, scene.predictions() if subject.uses_predictions else None, explain=True)
    differs = first_bit_difference(plain, told)
    assert differs is None, f"with explain=True {differs}; do not let the story change the rule"
    story, priors = told.explanation, len(scene.priors)
    assert story is not None, "expected an explanation, got None; call story.candidates in assign"
    key = story.pairs.gt * priors + story.pairs.prior
    assert bool((key.diff() > 0).all()), (
        "expected explained pairs ordered by box, then prior, none twice; tell them in that order"
    )
    kept = key[story.reason == REASONS.index("kept")]
    assert torch.equal(kept, (told.pairs.gt * priors + told.pairs.prior).sort().values), (
        f"expected the {len(told.pairs)} pairs of the result to be the kept candidates, got {len(kept)}"
    )
    lost = story.reason == REASONS.index("below_threshold")
    above = (lost & (story.score > story.threshold)).nonzero()  # never true where one of them is nan
    assert not len(above), (
        f"expected candidates below their threshold to have a lower score, got "
        f"{float(story.score[above[0]])} above {float(story.threshold[above[0]])}; costs are told negated"
    )


@holds("gradients flow through the result only where the assigner says so")
def gradient(subject: Subject) -> None:
    """`keeps_graph` says so; there they are finite."""
    scene = subject.scene()
    predictions = None
    if subject.uses_predictions:
        predictions = scene.predictions()
        for part in (predictions.logits, predictions.boxes, predictions.quality):
            assert part is not None
            part.requires_grad_()
    assignment = subject.call(scene, predictions)
    live = [values for values in value_columns(assignment) if values.requires_grad]
    if not getattr(subject.assigner, "keeps_graph", False):
        assert not live, (
            "expected a result without a graph, got one that requires gradients; compute under "
            "torch.no_grad() or set keeps_graph"
        )
        return
    assert live, "expected a result with a graph, because keeps_graph is set, got none"
    learned = [part for part in subject.assigner.parameters() if part.requires_grad]
    leaves = [*learned, *([predictions.logits, predictions.boxes] if predictions is not None else [])]
    found = torch.autograd.grad(torch.cat(live).sum(), leaves, allow_unused=True)
    assert any(part is not None for part in found), (
        "expected a gradient for parameters or predictions, got none"
    )
    assert all(part is None or bool(part.isfinite().all()) for part in found), (
        "expected finite gradients, got others; look for a square root or logarithm of 0"
    )
