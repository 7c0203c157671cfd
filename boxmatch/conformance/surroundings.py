"""Properties of the surroundings: precision, memory budget, threads, device, and calling again."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch

from .. import segments
from ..spatial import pieces
from ..structures import Assignment, Predictions
from .kit import NotApplicable, Subject, holds
from .outcome import difference, first_bit_difference, outcomes
from .scenes import Scene, copy_of


def _expect_same_bits(expected: Assignment, got: Assignment, case: str, remedy: str) -> None:
    differs = first_bit_difference(expected, got)
    assert differs is None, f"{case}: {differs}; {remedy}"


@contextmanager
def small_budgets(pairs: int = 60, entries: int = 64) -> Iterator[None]:
    """Let all queries and reductions work in pieces so small that every list is cut."""
    with patch.object(pieces, "PAIR_BUDGET", pairs), patch.object(segments, "MATRIX_BUDGET", entries):
        yield


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run torch with that many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@holds("working in small pieces changes no bit")
def small_pieces(subject: Subject) -> None:
    """The memory budget is a matter of memory alone."""
    scene = subject.scene((9, 0, 12, 1), seed=9)
    whole = subject.run(scene)
    with small_budgets():
        cut = subject.run(scene)
    _expect_same_bits(
        whole, cut, "in small pieces", "use boxmatch.reproducible for exp and log, and break ties by index"
    )


@holds("autocast changes no bit")
def autocast(subject: Subject) -> None:
    """Rules compare numbers; half precision would make ties of them."""
    scene, plain = subject.usual
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            cast = subject.run(scene)
        _expect_same_bits(plain, cast, f"under autocast to {dtype}", "leave autocast inside the call")


@holds("predictions in half precision are taken as the float32 numbers that they are")
def half_precision(subject: Subject) -> None:
    """Heads under autocast give such predictions."""
    if not subject.uses_predictions:
        raise NotApplicable("it reads no predictions")
    scene = subject.scene()
    half = _of_type(scene.predictions(), torch.bfloat16)
    expected, got = subject.call(scene, _of_type(half, torch.float32)), subject.call(scene, half)
    _expect_same_bits(expected, got, "with bfloat16 predictions", "convert them to float32 first")


def _of_type(predictions: Predictions, dtype: torch.dtype) -> Predictions:
    assert predictions.boxes is not None and predictions.quality is not None
    return Predictions(
        predictions.logits.to(dtype),
        predictions.deltas.to(dtype),
        predictions.boxes.to(dtype),
        predictions.quality.to(dtype),
    )


@holds("the same call gives the same bits again, from another instance too, and draws no random number")
def repeatable(subject: Subject) -> None:
    """No state, no chance."""
    (scene, first), state = subject.usual, torch.get_rng_state()
    second = subject.run(scene)
    other = Subject(subject.factory).run(scene)
    untouched = torch.equal(state, torch.get_rng_state())
    _expect_same_bits(first, second, "called again", "keep no state between calls")
    _expect_same_bits(
        first, other, "another instance", "draw from the content, as assign.pick.random_score does"
    )
    assert untouched, (
        "expected torch's random generator untouched, got another state; draw from the content, as "
        "assign.pick.random_score does, so that runs can be resumed"
    )


@holds("boxes and predictions are left as they were")
def inputs_untouched(subject: Subject) -> None:
    """In-place arithmetic belongs on fresh tensors."""
    scene = subject.scene()
    targets, predictions = scene.targets(), scene.predictions()
    before = {**copy_of(targets), **{f"predicted {k}": v for k, v in copy_of(predictions).items()}}
    subject.assigner(scene.priors, targets, predictions if subject.uses_predictions else None)
    after = {**copy_of(targets), **{f"predicted {k}": v for k, v in copy_of(predictions).items()}}
    changed = [name for name, values in before.items() if not torch.equal(values, after[name])]
    assert not changed, f"expected the inputs unchanged, got other {', '.join(changed)}; copy before writing"


@holds("two threads give the same bits as one")
def two_threads(subject: Subject) -> None:
    """Twelve boxes over most of a picture: lists long enough that torch shares them among threads."""
    scene = subject.scene((12,), height=256, width=256, seed=2)
    (picture,) = scene.pictures
    margin = torch.linspace(1, 40, 48).reshape(4, 12).T
    boxes = torch.tensor([0.0, 0.0, 256.0, 256.0]) + margin * torch.tensor([1, 1, -1, -1])
    crowded = scene.of(picture.with_boxes(boxes, picture.labels))
    with threads(1):
        one = subject.run(crowded)
    with threads(2):
        two = subject.run(crowded)
    _expect_same_bits(one, two, "with two threads", "use boxmatch.reproducible for exp and log")


@holds("the GPU gives the same pairs")
def gpu(subject: Subject) -> None:
    """Values up to rounding, because sums are added in another order there."""
    if not torch.cuda.is_available():
        raise NotApplicable("there is no GPU here")
    scene = subject.scene((40, 0, 60), seed=4)
    on_cpu, on_gpu = subject.run(scene), _run_on_gpu(subject, scene)
    for image, (expected, got) in enumerate(zip(outcomes(on_cpu), outcomes(on_gpu))):
        differs = difference(expected, got)
        assert differs is None, (
            f"picture {image}: {differs}; break ties by index, and never write two values to one place"
        )


def _run_on_gpu(subject: Subject, scene: Scene) -> Assignment:
    assigner = subject.factory()
    if isinstance(assigner, torch.nn.Module):
        assigner = assigner.to("cuda")
    predictions = None
    if subject.uses_predictions:
        here = scene.predictions()
        assert here.boxes is not None and here.quality is not None
        parts = (here.logits, here.deltas, here.boxes, here.quality)
        predictions = Predictions(*(part.to("cuda") for part in parts))
    priors = subject.layout.priors(64, 96, device="cuda")
    found: Assignment = assigner(priors, scene.targets().to("cuda"), predictions)
    return found
