"""`boxmatch predict`: find the objects in pictures."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from boxmatch.commands.arguments import PlainParser
from boxmatch.commands.errors import EXIT_DATA, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from boxmatch.data.geometry import Fill
    from boxmatch.models.detector import Detector
    from boxmatch.structures import Detections

HELP = """\
usage: boxmatch predict PICTURES... (--run RUN_DIR | --weights FILE) [options]

Finds the objects in pictures of any size. PICTURES are files, folders or patterns ('photos/*.jpg').
Writes each picture with boxes, names and scores, and all detections, in pixels of the files, as
detections.json (COCO results), detections.csv and images.json (names of the pictures and classes).

  --run RUN_DIR          use the best weights of a run
  --weights FILE         a .safetensors file
  --output DIR           (default: runs/predict-001, -002, ...)
  --min_score X          draw and write detections from this score on (default: 0.3; 0.55 where the score is
                         the root of a product, as for ATSS and PAA)
  --nms_iou X            of two overlapping boxes of a class the weaker is dropped (default: 0.4 for the
                         simple YOLO, else as saved)
  --max_detections N     per picture (default: 100)
  --image_size N         longest side given to the network (default: as trained; for weights outside a run 416
                         for the simple YOLO, else a shorter side of 800 and a longer one of 1333 at most)
  --multi_scale SIDES    look at several sizes, plain and mirrored, and merge by voting: shorter sides
                         like 320,416,512, or published (thirteen sizes of ATSS and PAA)
  --soft_vote            with it: keep merged boxes too, with lowered scores
  --batch_size N         pictures of one size at a time (default: 8)
  --device NAME          cpu, cuda, cuda:1 (default: a GPU if there is one)
  --no_pictures          write JSON and CSV only

Exit code 3: at least one file could not be read; it is named and the others are done.

Example:  boxmatch predict photos/ --run runs/train-001
"""


def run(arguments: Sequence[str]) -> int:
    """Predict, or print the help."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    options = _parser().parse(arguments)
    if options.min_score is not None and not 0 <= options.min_score <= 1:
        raise UsageError(f"--min_score: expected a number in [0, 1], got {options.min_score}")
    for name in ("image_size", "batch_size", "max_detections"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name}: expected 1 or more, got {value}")
    if options.multi_scale is not None and options.image_size is not None:
        raise UsageError("--image_size: --multi_scale says all sizes; leave one of them out")
    if options.soft_vote and options.multi_scale is None:
        raise UsageError("--soft_vote merges the sizes of --multi_scale; give both or none")
    return _predict(options)


def _parser() -> PlainParser:
    parser = PlainParser("predict")
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--run")
    parser.add_argument("--weights")
    parser.add_argument("--output")
    parser.add_argument("--min_score", type=float)
    parser.add_argument("--nms_iou", type=float)
    parser.add_argument("--max_detections", type=int, default=100)
    parser.add_argument("--image_size", type=int)
    parser.add_argument("--multi_scale")
    parser.add_argument("--soft_vote", action="store_true")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--device")
    parser.add_argument("--no_pictures", action="store_true")
    return parser


def _predict(options: argparse.Namespace) -> int:
    from boxmatch.commands.devices import find_device
    from boxmatch.commands.prediction import (
        InputRule,
        PictureStream,
        chosen,
        find_pictures,
        input_rule,
        predict_all,
        set_thresholds,
    )
    from boxmatch.commands.prediction_files import PredictionFiles
    from boxmatch.commands.run_folders import load, output_folder, weight_file

    files = find_pictures(options.pictures)
    weights = weight_file(options.run, options.weights)
    detector = load(weights).to(find_device(options.device))
    least = set_thresholds(
        detector,
        min_score=options.min_score,
        nms_iou=options.nms_iou,
        max_detections=options.max_detections,
    )
    rule = input_rule(weights, detector)
    found: Iterator[tuple[Path, Detections]]
    if options.multi_scale is None:
        stream = PictureStream(
            files, InputRule(options.image_size or rule.side, rule.fill), options.batch_size
        )
        found, problems = predict_all(detector, stream), stream.problems
    else:
        problems = []
        found = _at_all_sizes(options, detector, rule.fill, files, problems)
    folder = output_folder(options.output, "predict")
    writer = PredictionFiles(folder, files, detector.class_names, pictures=not options.no_pictures)
    for file, detections in found:
        writer.add(file, chosen(detections, detections.scores > least))
    writer.close()
    for problem in problems:
        print(f"boxmatch predict: skipped {problem}", file=sys.stderr)
    print(f"{writer.detections} objects in {writer.count} of {len(files)} pictures, written to {folder}")
    return EXIT_DATA if problems else 0


def _at_all_sizes(
    options: argparse.Namespace, detector: "Detector", fill: "Fill", files: "list[Path]", problems: list[str]
) -> "Iterator[tuple[Path, Detections]]":
    from boxmatch.commands.multi_scale import predict_files, read_scales
    from boxmatch.commands.prediction import with_extent
    from boxmatch.multi_scale import MultiScale

    multi_scale = MultiScale(
        detector,
        read_scales(options.multi_scale),
        soft=options.soft_vote,
        max_detections=options.max_detections,
        batch_size=options.batch_size,
        fill=fill,
    )
    for file, found in predict_files(multi_scale, files, problems):
        yield file, with_extent(found)
