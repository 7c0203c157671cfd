"""Time and memory of every assigner on the standard inputs, beside its dense form and published code."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from boxmatch.assign import Assigner
from boxmatch.bench.assigners import ASSIGNERS, Entry
from boxmatch.bench.dense_picture import MOVED_PAIRS, disagreement, match_all
from boxmatch.bench.measure import Cost, cost
from boxmatch.bench.standard_inputs import KINDS, Inputs, standard_inputs
from boxmatch.structures import Assignment


@dataclass(frozen=True)
class AssignRow:
    """One line of the benchmark; `dataclasses.asdict` makes it JSON.

    Args:
        inputs: name in `standard_inputs.KINDS`.
        positives: pairs per picture.
        milliseconds: median time per picture of our assigner, from boxes to pairs.
        cpu_milliseconds: median processor time per picture.
        peak_mebibytes: most memory held at once by tensors made during the call, for the whole batch.
        dense_milliseconds: the dense form, one picture; None where it was not measured.
        dense_peak_mebibytes: the same for the dense form, one picture.
        dense_ratio: processor time of the dense form over ours, per picture; on a GPU time on the clock.
        peer: published code timed in the same run.
        peer_ratio: as `dense_ratio`.
        note: what a reader of the ratio must know, or why there is no dense form.
    """

    assigner: str
    inputs: str
    priors: int
    batch_size: int
    boxes_per_image: int
    device: str
    threads: int
    positives: float
    milliseconds: float
    cpu_milliseconds: float
    peak_mebibytes: float
    dense_milliseconds: float | None = None
    dense_cpu_milliseconds: float | None = None
    dense_peak_mebibytes: float | None = None
    dense_ratio: float | None = None
    peer: str | None = None
    peer_milliseconds: float | None = None
    peer_cpu_milliseconds: float | None = None
    peer_peak_mebibytes: float | None = None
    peer_ratio: float | None = None
    note: str = ""


class Plan(NamedTuple):
    """What is measured on one batch of inputs."""

    kind: str
    batch_size: int
    boxes: int
    predicted: bool
    names: tuple[str, ...]


def plans(names: Sequence[str], batches: Sequence[int], boxes: Sequence[int]) -> list[Plan]:
    """The batches to be made, with the assigners that take them.

    Raises:
        KeyError: an assigner is unknown.
    """
    made = {name: ASSIGNERS[name].make().uses_predictions for name in names}
    found = []
    for kind in KINDS:
        for predicted in (False, True):
            takers = tuple(
                name for name in names if kind in ASSIGNERS[name].kinds and made[name] == predicted
            )
            for batch_size in batches if takers else ():
                found += [Plan(kind, batch_size, count, predicted, takers) for count in boxes]
    return found


def bench_assign(
    names: Sequence[str] = tuple(ASSIGNERS),
    batches: Sequence[int] = (1,),
    boxes: Sequence[int] = (7, 100),
    *,
    repeats: int = 9,
    dense_boxes: int = 100,
    device: str = "cpu",
    seed: int = 0,
) -> Iterator[AssignRow]:
    """Measure every assigner on every batch, with the threads torch has been given.

    Args:
        names: keys of `ASSIGNERS`.
        batches: pictures at a time.
        boxes: per picture.
        repeats: calls of which the median is taken, at most.
        dense_boxes: with more boxes than this neither the dense form nor published code is run, which would
            take gigabytes. They work picture by picture: they are timed on one.
        seed: of the inputs.

    Raises:
        RuntimeError: the two forms disagree on an input, so that comparing their speed would mean nothing.
    """
    beside: dict[tuple[str, str, int], Beside] = {}
    for plan in plans(names, batches, boxes):
        inputs = _inputs(plan, device, seed)
        for name in plan.names:
            entry = ASSIGNERS[name]
            mine = inputs if entry.quality else inputs.without_quality()
            key = (name, plan.kind, plan.boxes)
            if key not in beside and plan.boxes <= dense_boxes:
                beside[key] = _measure_beside(name, entry, mine.first_picture(), repeats)
            yield _measure(name, entry, plan, mine, repeats, beside.get(key, Beside()))


class Beside(NamedTuple):
    """What an assigner is compared with, on one picture."""

    dense: Cost | None = None
    peer: Cost | None = None


def _inputs(plan: Plan, device: str, seed: int) -> Inputs:
    kind = KINDS[plan.kind]
    made = standard_inputs(kind, plan.batch_size, plan.boxes, predicted=plan.predicted, seed=seed)
    return made if device == "cpu" else made.to(device, kind)


def call(assigner: Assigner, inputs: Inputs) -> Callable[[], Assignment]:
    """What is timed."""
    return lambda: assigner(inputs.priors, inputs.targets, inputs.predictions)


def _measure(name: str, entry: Entry, plan: Plan, inputs: Inputs, repeats: int, beside: Beside) -> AssignRow:
    device, images = inputs.targets.boxes.device, plan.batch_size
    function = call(entry.make().to(device), inputs)
    ours = cost(function, repeats, device)

    def ratio(theirs: Cost | None) -> float | None:
        if theirs is None:
            return None
        if device.type == "cpu":
            return theirs.cpu_milliseconds * images / ours.cpu_milliseconds
        return theirs.milliseconds * images / ours.milliseconds

    dense, peer = ((None,) * 3 if theirs is None else theirs for theirs in beside)
    return AssignRow(
        assigner=name,
        inputs=plan.kind,
        priors=len(inputs.priors),
        batch_size=images,
        boxes_per_image=plan.boxes,
        device=device.type,
        threads=torch.get_num_threads(),
        positives=len(function().pairs) / images,
        milliseconds=ours.milliseconds / images,
        cpu_milliseconds=ours.cpu_milliseconds / images,
        peak_mebibytes=ours.peak_mebibytes,
        dense_milliseconds=dense[0],
        dense_cpu_milliseconds=dense[1],
        dense_peak_mebibytes=dense[2],
        dense_ratio=ratio(beside.dense),
        peer=entry.peer.name if entry.peer else None,
        peer_milliseconds=peer[0],
        peer_cpu_milliseconds=peer[1],
        peer_peak_mebibytes=peer[2],
        peer_ratio=ratio(beside.peer),
        note=entry.note,
    )


def _measure_beside(name: str, entry: Entry, picture: Inputs, repeats: int) -> Beside:
    """The dense form, once it is found to agree, and published code."""
    device, dense = picture.targets.boxes.device, entry.dense
    assigner = entry.make().to(device)
    form = None
    if dense is not None:
        moved = disagreement(call(assigner, picture)(), match_all(dense, assigner, picture))
        if moved > MOVED_PAIRS:
            raise RuntimeError(
                f"{name}: expected the dense form to agree on all but {MOVED_PAIRS:.1%} of the pairs, got "
                f"another result for {moved:.1%}"
            )
        form = cost(lambda: match_all(dense, assigner, picture), repeats, device)
    peer = None if entry.peer is None else cost(entry.peer.prepare(picture), repeats, device)
    return Beside(form, peer)
