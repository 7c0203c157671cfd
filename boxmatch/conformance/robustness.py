"""Properties at the edges: tiny grids, boxes of all sizes and places, a crowd, wrong predictions."""

import re
from dataclasses import replace

import torch

from ..structures import Predictions
from .kit import NotApplicable, Subject, holds
from .outcome import difference, outcomes
from .scenes import LAYOUTS, Layout, Scene
from .well_formed import check_form


def _form_of(subject: Subject, scene: Scene) -> None:
    check_form(subject.run(scene), scene)


def _beside_an_ordinary_picture(subject: Subject, boxes: torch.Tensor) -> None:
    """Such boxes give a proper result, and another picture of the batch never notices."""
    scene = subject.scene((8, 6))
    odd, ordinary = scene.pictures
    labels = torch.arange(len(boxes)) % min(subject.classes, 3)
    batch = scene.of(odd.with_boxes(boxes, labels), ordinary)
    assignment = subject.run(batch)
    check_form(assignment, batch)
    alone = outcomes(subject.run(scene.of(ordinary)))[0]
    differs = difference(alone, outcomes(assignment)[1])
    assert differs is None, f"the picture beside them: {differs}; keep pictures apart"


@holds("a single prior is enough")
def one_prior(subject: Subject) -> None:
    """A grid of one cell; one cell per level for rules that insist on their levels."""
    layout = Layout("one prior", (((30.0, 24.0),),), (32,), free=subject.layout.free)
    try:
        scene = subject.scene_on(layout, (1, 0, 3), height=32, width=32)
        subject.run(scene)
    except ValueError:
        cell = subject.layout.strides[0]
        scene = subject.scene((1, 0, 3), height=cell, width=cell)
    _form_of(subject, scene)


@holds("levels with fewer priors than the rule wants are used whole")
def few_priors(subject: Subject) -> None:
    """A top-k that is larger than a level must not raise."""
    for height, width in ((16, 16), (8, 40)):
        _form_of(subject, subject.scene((3, 0, 5), height=height, width=width))


@holds("grids of a single row or a single column work")
def narrow_grids(subject: Subject) -> None:
    """Where a level has no neighbour on one side."""
    for height, width in ((8, 96), (96, 8)):
        _form_of(subject, subject.scene((6, 0, 4), height=height, width=width))


@holds("boxes outside the picture, or far larger than it, break nothing")
def boxes_outside(subject: Subject) -> None:
    """They may be served or starved; their neighbours in the batch do not notice."""
    boxes = [
        [-500.0, -500.0, -400.0, -420.0],
        [1000.0, 1000.0, 1040.0, 1020.0],
        [90.0, 60.0, 130.0, 100.0],
        [-20.0, 30.0, 200.0, 31.0],
        [0.0, 0.0, 96.0, 64.0],
    ]
    _beside_an_ordinary_picture(subject, torch.tensor(boxes))


@holds("boxes of half a pixel and of 10 000 pixels break nothing")
def extreme_sizes(subject: Subject) -> None:
    """Also together with ordinary ones, and as thin as a line."""
    boxes = [
        [10.0, 10.0, 10.5, 10.5],
        [-5000.0, -5000.0, 5000.0, 5000.0],
        [12.0, 12.0, 44.0, 40.0],
        [10.0, 10.0, 10.001, 10.001],
        [-5000.0, 30.0, 5000.0, 30.5],
        [12.0, 12.0, 12.5, 12.5],
    ]
    _beside_an_ordinary_picture(subject, torch.tensor(boxes))


@holds("5 000 boxes in one picture are dealt with")
def crowd(subject: Subject) -> None:
    """More boxes than priors."""
    _form_of(subject, subject.scene((5000,)))


@holds("every kind of priors is served or refused by a ValueError that says what is expected")
def kinds_of_priors(subject: Subject) -> None:
    """Anchors, points, one level, five levels, boxes on no grid; none of the grids is square."""
    for layout in LAYOUTS:
        scene = subject.scene_on(layout, (4, 0, 2), height=40, width=72)
        try:
            assignment = subject.run(scene)
        except ValueError as refusal:
            assert "expected" in str(refusal), (
                f"{layout.name}: expected an error that says what was expected, got '{refusal}'"
            )
        else:
            check_form(assignment, scene)


def _needs_predictions(subject: Subject) -> Scene:
    if not subject.uses_predictions:
        raise NotApplicable("it reads no predictions")
    return subject.scene((3, 2))


@holds("predictions that are not finite are refused by an error that names them")
def non_finite_predictions(subject: Subject) -> None:
    """A ValueError with the part, picture and prior."""
    scene = _needs_predictions(subject)
    for part in ("logits", "deltas", "boxes"):
        for value in (torch.nan, torch.inf):
            predictions = scene.predictions()
            getattr(predictions, part)[1, 5, 2] = value
            said = _refusal(subject, scene, predictions, f"{part} of {value}")
            assert part in said and re.search(r"\b5\b", said), (
                f"expected an error that names {part}, picture 1 and prior 5, got '{said}'"
            )


@holds("missing predictions are refused by an error that says so")
def missing_predictions(subject: Subject) -> None:
    """Whole, and the decoded boxes alone, if the rule needs them."""
    scene = _needs_predictions(subject)
    said = _refusal(subject, scene, None, "no predictions")
    assert "predictions" in said, f"expected an error about predictions, got '{said}'"
    try:
        check_form(subject.call(scene, replace(scene.predictions(), boxes=None)), scene)
    except ValueError as refusal:
        assert "boxes" in str(refusal), (
            f"without decoded boxes: expected an error about boxes, got '{refusal}'"
        )


@holds("it works without a quality branch, or says that it needs one")
def without_quality(subject: Subject) -> None:
    """Not every head has one."""
    scene = _needs_predictions(subject)
    try:
        check_form(subject.call(scene, scene.predictions(quality=False)), scene)
    except ValueError as refusal:
        assert "quality" in str(refusal), f"expected an error about the quality branch, got '{refusal}'"


def _refusal(subject: Subject, scene: Scene, predictions: Predictions | None, case: str) -> str:
    """What the ValueError says."""
    try:
        subject.call(scene, predictions)
    except ValueError as refusal:
        return str(refusal)
    raise AssertionError(f"{case}: expected a ValueError, got a result; check before you compute")
