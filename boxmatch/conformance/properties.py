"""All properties, and the verdicts on an assigner."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from . import independence, robustness, surroundings, well_formed
from .kit import NotApplicable, Property, Subject

PROPERTIES: dict[str, Property] = {
    prop.name: prop
    for prop in (
        well_formed.form,
        well_formed.candidates,
        well_formed.explanation,
        well_formed.gradient,
        independence.order_of_boxes,
        independence.order_of_images,
        independence.image_by_image,
        independence.empty_image,
        independence.empty_batch,
        independence.duplicates,
        independence.ignore_regions,
        independence.turned_picture,
        robustness.one_prior,
        robustness.few_priors,
        robustness.narrow_grids,
        robustness.boxes_outside,
        robustness.extreme_sizes,
        robustness.crowd,
        robustness.kinds_of_priors,
        robustness.non_finite_predictions,
        robustness.missing_predictions,
        robustness.without_quality,
        surroundings.small_pieces,
        surroundings.autocast,
        surroundings.half_precision,
        surroundings.repeatable,
        surroundings.inputs_untouched,
        surroundings.two_threads,
        surroundings.gpu,
    )
}
"""By name, in the order in which they are tried."""


@dataclass(frozen=True)
class Verdict:
    """How a property came out.

    Args:
        message: what went wrong, or why the property does not apply; empty if it holds.
    """

    name: str
    sentence: str
    outcome: Literal["pass", "FAIL", "not applicable"]
    message: str = ""


def check(factory: Callable[[], Any] | Subject) -> Iterator[Verdict]:
    """Try all properties on an assigner, one verdict after the other.

    Args:
        factory: makes the assigner; a `Subject` names exceptions too.

    Raises:
        ValueError: an exception names no property, or the assigner takes no kind of priors.
    """
    subject = Subject.of(factory)
    unknown = sorted(set(subject.exceptions) - set(PROPERTIES))
    if unknown:
        raise ValueError(f"expected exceptions among {', '.join(PROPERTIES)}, got {', '.join(unknown)}")
    _ = subject.layout  # refuses here what no property could be tried on
    for name, prop in PROPERTIES.items():
        try:
            prop(subject)
        except NotApplicable as reason:
            yield Verdict(name, prop.sentence, "not applicable", str(reason))
        except AssertionError as error:
            # An assert without words is one of the assigner's own.
            said = str(error) or "expected no error, got an AssertionError"
            yield Verdict(name, prop.sentence, "FAIL", said)
        except Exception as error:  # whatever somebody's assigner raises is a verdict, not an end
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"expected no error, got {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
            yield Verdict(name, prop.sentence, "FAIL", said)
        else:
            yield Verdict(name, prop.sentence, "pass")
