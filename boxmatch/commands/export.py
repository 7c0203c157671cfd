"""`boxmatch export`: write a detector as a file that runs without boxmatch."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from boxmatch.commands.arguments import PlainParser
from boxmatch.commands.errors import UsageError

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}

HELP = """\
usage: boxmatch export (--run RUN_DIR | --weights FILE) [options]

Writes a detector as a file that runs without boxmatch: ONNX (for onnxruntime and others), or a program
for torch.export.load. Input: RGB pictures (B, 3, H, W), uint8. Outputs: boxes (B, P, 4) in pixels and
scores (B, P, C) of all places; with --nms the detections as boxes, scores, labels and image (number of
the picture), all pictures in one list. Class names are in the file's metadata.

  --run RUN_DIR        the best weights of a run
  --weights FILE       a .safetensors file
  --format NAME        onnx (default) or torch
  --output FILE        (default: the weights' name with .onnx or .pt2)
  --nms                end with detections, by the detector's own thresholds and limits
  --size H W           of the pictures; multiples of 32 (default: the largest wide picture as trained)
  --dynamic            any number and size of pictures (default: one picture of --size)
  --score_threshold X  with --nms; also --nms_iou X and --max_detections N (default: as saved)

ONNX needs:  pip install 'boxmatch[export]'

Example:  boxmatch export --run runs/train-001 --nms --dynamic --output detector.onnx
"""


def run(arguments: Sequence[str]) -> int:
    """Export, or print the help."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    parser = PlainParser("export")
    for name in ("run", "weights", "output"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--format", default="onnx")
    parser.add_argument("--nms", action="store_true")
    parser.add_argument("--size", nargs=2, type=int)
    parser.add_argument("--dynamic", action="store_true")
    for name, kind in (("score_threshold", float), ("nms_iou", float), ("max_detections", int)):
        parser.add_argument(f"--{name}", type=kind)
    options = parser.parse(arguments)
    if options.format not in FORMATS:
        raise UsageError(f"--format: expected {' or '.join(FORMATS)}, got {options.format!r}")
    changes = {name: getattr(options, name) for name in ("score_threshold", "nms_iou", "max_detections")}
    if not options.nms and any(value is not None for value in changes.values()):
        raise UsageError("thresholds and limits belong to suppression: give --nms too, or leave them out")
    return _export(options, changes)


def _export(options: argparse.Namespace, changes: dict[str, float | int | None]) -> int:
    from boxmatch.commands.prediction import input_rule
    from boxmatch.commands.run_folders import load, weight_file
    from boxmatch.export import export_onnx, export_torch

    weights = weight_file(options.run, options.weights)
    detector = load(weights, **changes)
    size = tuple(options.size) if options.size else input_rule(weights, detector).largest
    target = Path(options.output) if options.output else weights.with_suffix(FORMATS[options.format])
    write = export_onnx if options.format == "onnx" else export_torch
    write(detector, target, nms=options.nms, size=size, dynamic=options.dynamic)
    pictures = "any number and size" if options.dynamic else f"one picture of {size[0]} x {size[1]}"
    print(f"Written to {target}: {pictures}, {'detections' if options.nms else 'boxes and scores'}")
    return 0
