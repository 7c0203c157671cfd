"""The frame of the conformance kit: what a property is, and whom it is tried on."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from ..structures import Assignment, Predictions
from .scenes import LAYOUTS, Layout, Scene, random_scene

CLASSES = 12
"""Classes of the predictions, if the assigner does not name a number of its own."""


class NotApplicable(Exception):
    """A property that says nothing about this assigner; the text says why."""


class Subject:
    """An assigner under test: a factory of it, with what the properties must know.

    Itself a factory: calling it gives a new assigner.

    Args:
        factory: makes the assigner; called anew where a property compares two of them.
        exceptions: properties by name that the published rule breaks by definition, each with the reason;
            added to the assigner's own `conformance_exceptions`.

    Raises:
        ValueError: in use, an exception names no property, or the assigner refuses all kinds of priors.
    """

    def __init__(self, factory: Callable[[], Any], *, exceptions: Mapping[str, str] | None = None) -> None:
        self.factory = factory
        self._exceptions = dict(exceptions or {})

    def __call__(self) -> Any:
        return self.factory()

    @classmethod
    def of(cls, factory: "Callable[[], Any] | Subject") -> "Subject":
        """The subject itself, or one for a bare factory."""
        return factory if isinstance(factory, Subject) else cls(factory)

    @cached_property
    def assigner(self) -> Any:
        """One that all calls share; an assigner keeps no state between them."""
        return self.factory()

    @cached_property
    def exceptions(self) -> dict[str, str]:
        """Reason of each property that does not apply."""
        return {**getattr(self.assigner, "conformance_exceptions", {}), **self._exceptions}

    @property
    def uses_predictions(self) -> bool:
        """Whether it reads what the network says."""
        return bool(getattr(self.assigner, "uses_predictions", False))

    @property
    def explains(self) -> bool:
        """Whether it can be asked to explain itself."""
        call = self.assigner.forward if isinstance(self.assigner, nn.Module) else self.assigner
        return "explain" in inspect.signature(call).parameters

    @property
    def classes(self) -> int:
        """Classes of the predictions it is given."""
        return int(getattr(self.assigner, "num_classes", CLASSES))

    @cached_property
    def layout(self) -> Layout:
        """The first kind of priors that it does not refuse."""
        refusals = []
        for layout in LAYOUTS:
            try:
                self.run(self.scene_on(layout))
            except ValueError as error:
                refusals.append(f"{layout.name}: {error}")
            else:
                return layout
        raise ValueError("expected an assigner for one of these kinds of priors, got\n" + "\n".join(refusals))

    def scene_on(self, layout: Layout, counts: tuple[int, ...] = (7, 0, 12, 3), **options: int) -> Scene:
        """Random pictures for a kind of priors; `options` as for `random_scene`."""
        return random_scene(layout, counts, classes=self.classes, **options)

    def scene(self, counts: tuple[int, ...] = (7, 0, 12, 3), **options: int) -> Scene:
        """Random pictures for the priors it takes."""
        return self.scene_on(self.layout, counts, **options)

    @cached_property
    def usual(self) -> tuple[Scene, Assignment]:
        """Four pictures, one of them without boxes, and what they come to: many properties begin with it."""
        scene = self.scene()
        return scene, self.run(scene)

    def run(self, scene: Scene) -> Assignment:
        """Call the assigner on a scene."""
        return self.call(scene, scene.predictions() if self.uses_predictions else None)

    def call(self, scene: Scene, predictions: Predictions | None, **options: bool) -> Assignment:
        """Call the assigner on a scene with other predictions, or with options such as `explain`."""
        found: Assignment = self.assigner(scene.priors, scene.targets(), predictions, **options)
        return found


@dataclass(frozen=True)
class Property:
    """Something that holds for every assigner, whatever its rule.

    Args:
        name: by which exceptions call it.
        sentence: what holds.
        check: raises AssertionError where it does not, NotApplicable where it says nothing.
    """

    name: str
    sentence: str
    check: Callable[[Subject], None]

    def __call__(self, factory: Callable[[], Any] | Subject) -> None:
        """Try it on an assigner.

        Raises:
            AssertionError: it does not hold; the text says what was expected, what came, and the remedy.
            NotApplicable: it says nothing about this assigner, or the assigner names it as an exception.
        """
        subject = Subject.of(factory)
        if self.name in subject.exceptions:
            raise NotApplicable(subject.exceptions[self.name])
        self.check(subject)


def holds(sentence: str) -> Callable[[Callable[[Subject], None]], Property]:
    """Make a property of a function: its name, and the sentence that it checks."""

    def make(check: Callable[[Subject], None]) -> Property:
        return Property(check.__name__, sentence, check)

    return make
