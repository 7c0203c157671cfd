"""What an assignment says, in a form that does not depend on the order of its boxes and pictures."""

import math
from collections import defaultdict
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from ..structures import Assignment

Pair = tuple[tuple[float, ...], int, int]
"""A box, its class, a prior."""

Values = tuple[float, float, float]
"""Weight, score and negative weight of a pair."""

RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""How far values may lie apart that were added up in another order in float32."""


@dataclass(frozen=True)
class Outcome:
    """What the priors of one picture learn.

    Args:
        learned: the values of each pair; several where equal boxes learn one prior.
        ignored: priors that take no part.
    """

    learned: dict[Pair, list[Values]]
    ignored: frozenset[int]


def outcomes(assignment: Assignment, place: Int64[Tensor, "P"] | None = None) -> list[Outcome]:
    """The outcome of each picture.

    Args:
        place: the number under which each prior is reported; its own if not given.
    """
    priors = assignment.pairs.prior if place is None else place[assignment.pairs.prior]
    boxes, labels = assignment.targets.boxes.tolist(), assignment.targets.labels.tolist()
    learned: list[dict[Pair, list[Values]]] = [
        defaultdict(list) for _ in range(assignment.targets.batch_size)
    ]
    values = zip(*(column.detach().tolist() for column in value_columns(assignment)))
    rows = zip(assignment.image.tolist(), assignment.pairs.gt.tolist(), priors.tolist(), values)
    for image, gt, prior, (weight, score, negative) in rows:
        learned[image][(tuple(boxes[gt]), labels[gt], prior)].append((weight, score, negative))
    ignored: list[set[int]] = [set() for _ in learned]
    for image, prior in assignment.ignored.nonzero().tolist():
        ignored[image].add(prior if place is None else int(place[prior]))
    return [Outcome(dict(part), frozenset(rest)) for part, rest in zip(learned, ignored)]


def value_columns(assignment: Assignment) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, score and negative weight of every pair."""
    return assignment.weight, assignment.score, assignment.neg_weight


def difference(expected: Outcome, got: Outcome) -> str | None:
    """The first place where two outcomes differ, in words; None where they agree up to rounding."""
    for pair in sorted(expected.learned.keys() | got.learned.keys(), key=lambda pair: (pair[2], pair)):
        wanted, found = sorted(expected.learned.get(pair, [])), sorted(got.learned.get(pair, []))
        if len(wanted) != len(found) or not all(map(_close, wanted, found)):
            box, label, prior = pair
            corners = ", ".join(f"{value:g}" for value in box)
            return (
                f"prior {prior} and box [{corners}] of class {label}: expected {_said(wanted)}, "
                f"got {_said(found)}"
            )
    lone = sorted(expected.ignored ^ got.ignored)
    if lone:
        ordinary, ignored = "an ordinary prior", "an ignored one"
        was, now = (ignored, ordinary) if lone[0] in expected.ignored else (ordinary, ignored)
        return f"prior {lone[0]}: expected {was}, got {now}"
    return None


def _close(wanted: Values, found: Values) -> bool:
    return all(math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE) for a, b in zip(wanted, found))


def _said(values: list[Values]) -> str:
    if not values:
        return "no pair"
    return " and ".join(f"weight {w:.6g}, score {s:.6g}, neg_weight {n:.6g}" for w, s, n in values)


def first_bit_difference(expected: Assignment, got: Assignment) -> str | None:
    """The first entry in which two assignments differ, in words; None where every bit is equal."""
    columns = {
        "pairs.gt": (expected.pairs.gt, got.pairs.gt),
        "pairs.prior": (expected.pairs.prior, got.pairs.prior),
        **dict(zip(("weight", "score", "neg_weight"), zip(value_columns(expected), value_columns(got)))),
        "ignored": (expected.ignored, got.ignored),
    }
    for name, (wanted, found) in columns.items():
        if wanted.shape != found.shape:
            return f"expected {len(wanted)} entries in {name}, got {len(found)}"
        unequal = (wanted != found).nonzero()
        if len(unequal):
            place = tuple(unequal[0].tolist())
            return f"{name}{list(place)}: expected {wanted[place].item()!r}, got {found[place].item()!r}"
    return None
