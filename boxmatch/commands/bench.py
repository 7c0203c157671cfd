"""`boxmatch bench`: time assignment, data, training steps, detectors, or reading a large file."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from boxmatch.commands.arguments import PlainParser
from boxmatch.commands.errors import UsageError
from boxmatch.commands.suggestions import advice

HELP = """\
usage: boxmatch bench assign [--assigners NAME ...] [--batch 1 16] [--boxes 1 7 20 100] [--memory-curve]
       boxmatch bench data   [--root DIR] [--split train] [--batches N]
       boxmatch bench step   [--config FILE.yaml] [--data.root DIR] [--steps N] [--precision P]
       boxmatch bench detector [--detectors NAME ...] [--size 320 320 800 1344] [--batch 1 8] [--steps N]
       boxmatch bench index  [--pictures N] [--objects N] [--segmentation]

  assign   every assigner on the standard inputs: time and peak memory, beside the dense form and torchvision;
           --dense_boxes N: up to how many boxes these are run (default: 100); --repeats N; --device NAME;
           --memory-curve: growth from 1 to 1000 boxes, also drawn to --picture FILE.png
  data     training samples per second and core, without and with a cache; share of decode, geometry, colour
  step     one training step taken apart: data, forward, assign, loss, backward, optimiser
  detector training step and inference of the dense detectors taken apart, with peak memory, beside
           torchvision's FCOS and RetinaNet (--beside none: without); --size: pairs of height and width
           (default: 320 320); --boxes N per picture (default: 7); --backbone NAME (default: resnet50)
  index    reading and checking a generated COCO file of 120 000 pictures and 860 000 boxes

  --image_size N   data, step: side of the input (default: 416; step: as in the configuration)
  --batch_size N   data, step: pictures at a time (default: 16; step: as in the configuration)
  --threads N      threads of PyTorch (default: 1)
  --json FILE      also write rows and machine as JSON ('-' for the screen)

bench data draws its own pictures without --root, bench step draws shapes without --data.root.
"""


def run(arguments: Sequence[str]) -> int:
    """Measure, or print the help."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    benches: dict[str, Callable[[Sequence[str]], tuple[argparse.Namespace, list[Any]]]] = {
        "assign": _assign,
        "data": _data,
        "step": _step,
        "detector": _detector,
        "index": _index,
    }
    name, *rest = arguments
    if name not in benches:
        raise UsageError(f"there is no benchmark '{name}'; {advice(name, benches)}")
    options, rows = benches[name](rest)
    from boxmatch.commands import bench_assign, bench_detector
    from boxmatch.commands.bench_report import write_report

    if name == "assign" and not options.memory_curve:
        write_report(name, rows, options.json, bench_assign.ASSIGN_COLUMNS)
        below = bench_assign.explanation(rows)
    elif name == "detector":
        write_report(name, rows, options.json, *bench_detector.TABLES)
        below = bench_detector.EXPLANATION
    else:
        write_report(name, rows, options.json)
        return 0
    if options.json != "-":
        print(below)
    return 0


def _common(name: str, *, sizes: bool = True) -> PlainParser:
    parser = PlainParser(f"bench {name}")
    parser.add_argument("--json")
    parser.add_argument("--threads", type=int, default=1)
    if sizes:
        parser.add_argument("--image_size", type=int, default=416)
        parser.add_argument("--batch_size", type=int, default=16)
    return parser


def _start(parser: PlainParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options and give PyTorch its threads."""
    options = parser.parse(arguments)
    for name, value in vars(options).items():
        numbers = value if isinstance(value, list) else [value]
        least = 0 if name == "dense_boxes" else 1
        if any(type(number) is int and number < least for number in numbers):
            raise UsageError(f"--{name}: expected {least} or more, got {value}")
    import torch

    torch.set_num_threads(options.threads)
    return options


def _assign(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[Any]]:
    from boxmatch.commands.bench_assign import add_options, assign_rows

    parser = _common("assign", sizes=False)
    add_options(parser)
    options = _start(parser, arguments)
    return options, assign_rows(options)


def _data(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[Any]]:
    parser = _common("data")
    parser.add_argument("--root")
    parser.add_argument("--split", default="train")
    parser.add_argument("--batches", type=int, default=20)
    options = _start(parser, arguments)
    from boxmatch.bench.data import bench_data
    from boxmatch.data.load import load_splits

    annotations = None
    if options.root:
        read, report = load_splits(options.root, {options.split: None}, pictures="skip")
        report.refuse()
        annotations = read[options.split]
    rows = bench_data(
        annotations, size=options.image_size, batch_size=options.batch_size, batches=options.batches
    )
    return options, list(rows)


def _step(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[Any]]:
    """Options of the configuration, such as `--data.workers`, go to its own parser."""
    parser = _common("step", sizes=False)
    parser.add_argument("--image_size", type=int)
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--precision", default="32")
    parser.add_argument("--device")
    own, configured = split_arguments(parser, arguments)
    options = _start(parser, own)
    if options.precision not in ("32", "bf16-mixed"):
        raise UsageError(f"--precision: expected 32 or bf16-mixed, got {options.precision!r}")
    from boxmatch.commands.bench_step import step_rows

    return options, step_rows(options, configured)


def _detector(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[Any]]:
    from boxmatch.commands.bench_detector import add_options, detector_rows

    parser = _common("detector", sizes=False)
    add_options(parser)
    options = _start(parser, arguments)
    return options, detector_rows(options)


def split_arguments(parser: PlainParser, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments this parser knows, with their values, and the others."""
    flags = {flag for action in parser._actions for flag in action.option_strings}
    own: list[str] = []
    other: list[str] = []
    current = other
    for argument in arguments:
        if argument.startswith("--"):
            current = own if argument.partition("=")[0] in flags else other
        current.append(argument)
    return own, other


def _index(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[Any]]:
    parser = _common("index", sizes=False)
    parser.add_argument("--pictures", type=int, default=120_000)
    parser.add_argument("--objects", type=int, default=860_000)
    parser.add_argument("--segmentation", action="store_true")
    options = _start(parser, arguments)
    from boxmatch.bench.index import measure_index

    cost = measure_index(
        pictures=options.pictures, objects=options.objects, segmentation=options.segmentation
    )
    return options, [cost]
