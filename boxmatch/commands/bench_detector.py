"""`boxmatch bench detector`: its options and its tables."""

import argparse
from collections.abc import Sequence
from typing import Any, get_args

from boxmatch.commands.arguments import PlainParser
from boxmatch.commands.errors import UsageError
from boxmatch.commands.suggestions import advice

_PLACE = {"model": "model", "height": "height", "width": "width", "batch_size": "batch"}

TRAIN_COLUMNS = _PLACE | {
    "step.wall": "step ms",
    "step.processor": "step CPU ms",
    "forward.processor": "forward",
    "assign.processor": "assign",
    "loss.processor": "loss",
    "backward.processor": "backward",
    "optimiser.processor": "optimiser",
    "assign_loss_share": "assign + loss",
    "step_ratio": "/ torchvision FCOS",
    "train_mebibytes": "MiB",
    "note": "note",
}
"""Of a training step: fields of a `DetectorRow` and their heads; the JSON has everything."""

INFERENCE_COLUMNS = _PLACE | {
    "inference.wall": "inference ms",
    "inference.processor": "inference CPU ms",
    "network.processor": "network",
    "postprocess.processor": "post-processing",
    "vote_share": "voting adds",
    "inference_ratio": "/ torchvision FCOS",
    "detections": "detections",
    "inference_mebibytes": "MiB",
}
"""Of inference."""

TABLES = (TRAIN_COLUMNS, INFERENCE_COLUMNS)

EXPLANATION = """\
Times are per picture, medians over the rounds; phases are processor time of all threads. 'assign + loss' is
their share of the step, 'voting adds' what score voting adds to the inference without it. MiB is how far the
resident memory of a process of its own grows for the whole batch. Weights are random: one backbone for all,
with frozen norms, stem and first stage; class branches are scaled so that about 1000 entries per picture are
candidates."""


def add_options(parser: PlainParser) -> None:
    """The options of the command beside --json and --threads."""
    parser.add_argument("--detectors", nargs="+")
    parser.add_argument("--beside", default="torchvision")
    parser.add_argument("--size", type=int, nargs="+", default=[320, 320])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--boxes", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--backbone", default="resnet50")


def detector_rows(options: argparse.Namespace) -> list[Any]:
    """Measure every model at every size and batch."""
    from tqdm.auto import tqdm

    from boxmatch.bench.detector import bench_detector

    names, sizes = _names(options), _sizes(options.size)
    settings = [(size, batch) for size in sizes for batch in options.batch]
    rows = []
    with tqdm(total=len(names) * len(settings) * (2 + options.steps), leave=False, disable=None) as progress:

        def measured(what: str) -> None:
            progress.set_description(f"{height} × {width}, batch {batch}: {what}", refresh=False)
            progress.update()

        for (height, width), batch in settings:
            rows += bench_detector(
                names,
                (height, width),
                batch,
                boxes=options.boxes,
                rounds=options.steps,
                backbone=options.backbone,
                measured=measured,
            )
    return rows


def _names(options: argparse.Namespace) -> list[str]:
    from boxmatch.bench.detector_models import OURS, THEIRS
    from boxmatch.models.dense_backbone import DenseBackboneName

    for name in options.detectors or ():
        if name not in OURS:
            raise UsageError(f"there is no detector '{name}'; {advice(name, OURS)}")
    if options.beside not in ("torchvision", "none"):
        raise UsageError(f"--beside: expected torchvision or none, got '{options.beside}'")
    backbones = [name for name in get_args(DenseBackboneName) if name.startswith("resnet")]
    if options.backbone not in backbones:
        raise UsageError(f"there is no backbone '{options.backbone}'; {advice(options.backbone, backbones)}")
    return [*dict.fromkeys(options.detectors or OURS), *(THEIRS if options.beside == "torchvision" else ())]


def _sizes(sides: Sequence[int]) -> list[tuple[int, int]]:
    if len(sides) % 2 or any(side % 32 for side in sides):
        raise UsageError(
            f"--size: expected pairs of height and width, multiples of 32, got {' '.join(map(str, sides))}"
        )
    return list(zip(sides[::2], sides[1::2], strict=True))
