"""`boxmatch convert`: read a checkpoint of the original project."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boxmatch.commands.arguments import PlainParser
from boxmatch.commands.errors import UsageError

if TYPE_CHECKING:
    from boxmatch.models import Detector

METHODS = ("single_grid", "nearby_grid", "all_grid")
FAMILIES = ("atss", "dynamic_atss", "paa", "dual_weight", "fcos", "retinanet")

HELP = """\
usage: boxmatch convert CHECKPOINT --method METHOD [options]

Reads a checkpoint of zh320/simple-yolo-pytorch (best.pth, last.pth or its bare tensors), or a dense
detector of maskrcnn-benchmark or MMDetection, and writes it as FILE.safetensors with FILE.json beside
it. Backbone, width and number of classes follow from the tensors. No code of the checkpoint is run.

  --method METHOD        label assignment it was trained with; it decides what the outputs mean and the
                         checkpoint does not record it. Simple YOLO: single_grid, nearby_grid, all_grid;
                         dense: atss, dynamic_atss, paa, dual_weight, fcos, retinanet
  --output FILE          (default: the checkpoint's name with .safetensors)
  --classes NAME ...     class names in label order (default: class_0, class_1, ...)
  --classes_file FILE    the same, one name a line
  --anchors W,H ...      simple YOLO: anchors in pixels, smallest stride first (default: those of COCO)
  --drop TENSOR ...      tensors to leave out

Example:  boxmatch convert best.pth --method nearby_grid --classes_file classes.txt
          boxmatch predict photos/ --weights best.safetensors
"""


def run(arguments: Sequence[str]) -> int:
    """Convert, or print the help."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    parser = PlainParser("convert")
    parser.add_argument("checkpoint")
    parser.add_argument("--method")
    parser.add_argument("--output")
    parser.add_argument("--classes", nargs="+")
    parser.add_argument("--classes_file")
    parser.add_argument("--anchors", nargs="+")
    parser.add_argument("--drop", nargs="+", default=[])
    return _convert(parser.parse(arguments))


def _convert(options: argparse.Namespace) -> int:
    from pathlib import Path

    from boxmatch.checkpoints import convert, convert_dense
    from boxmatch.commands.run_folders import checkpoint_errors
    from boxmatch.commands.suggestions import advice

    known = (*METHODS, *FAMILIES)
    if options.method not in known:
        given = "" if options.method is None else f", got {options.method!r}; {advice(options.method, known)}"
        raise UsageError(f"--method: expected {', '.join(known)}{given}")
    if options.method in FAMILIES and options.anchors is not None:
        raise UsageError(
            f"--anchors: a {options.method} checkpoint has the anchors of its method; leave it out"
        )
    target = Path(options.output) if options.output else Path(options.checkpoint).with_suffix(".safetensors")
    names = _class_names(options.classes, options.classes_file)
    detector: Detector
    with checkpoint_errors():
        if options.method in FAMILIES:
            detector = convert_dense(
                options.checkpoint, target, family=options.method, class_names=names, drop=options.drop
            )
        else:
            detector = convert(
                options.checkpoint,
                target,
                method=options.method,
                class_names=names,
                anchors=_anchors(options.anchors),
                drop=options.drop,
            )
    print(
        f"{target}: {len(detector.class_names)} classes, {detector.num_parameters:,} parameters\n"
        f"Try it:  boxmatch predict PICTURES --weights {target}"
    )
    return 0


def _class_names(names: list[str] | None, file: str | None) -> list[str] | None:
    from pathlib import Path

    if names is not None and file is not None:
        raise UsageError("give --classes or --classes_file, not both")
    if file is None:
        return names
    if not Path(file).is_file():
        raise UsageError(f"--classes_file: there is no file {file}")
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _anchors(words: list[str] | None) -> list[list[tuple[float, float]]] | None:
    """Nine (or any multiple of three) W,H pairs as three levels."""
    if words is None:
        return None
    try:
        pairs = [(float(width), float(height)) for width, height in (word.split(",") for word in words)]
    except ValueError as error:
        raise UsageError(f"--anchors: expected pairs like 10,13 16,30, got {' '.join(words)}") from error
    if len(pairs) % 3:
        raise UsageError(
            f"--anchors: expected the same number for each of the 3 levels, got {len(pairs)} pairs"
        )
    per_level = len(pairs) // 3
    return [pairs[start : start + per_level] for start in range(0, len(pairs), per_level)]
