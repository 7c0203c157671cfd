"""`boxmatch train`: train a detector on a data set."""

from collections.abc import Sequence
from pathlib import Path

from boxmatch.commands.errors import UsageError

HELP = """\
usage: boxmatch train --data.root DIR [--config FILE.yaml] [options]

Trains a detector and leaves a run folder: config.yaml, metrics.json, metrics.csv, best.safetensors,
checkpoints, curves and pictures. The data is checked before the first step.

  --config FILE.yaml              recipe; options given here win over it
  --data.root DIR                 folder in VOC, COCO or YOLO layout; classes are found in it
  --output DIR                    run folder (default: runs/train-001, -002, ...)
  --resume RUN_DIR                go on where a run has stopped
  --seed N                        all randomness follows from it (default: 0)

  --trainer.max_epochs N          epochs
  --trainer.devices N             processes on this machine; --trainer.accelerator cpu|gpu
  --trainer.precision P           32, bf16-mixed or 16-mixed
  --data.image_size N             side of the network's input in pixels
  --data.batch_size N             pictures per step
  --data.workers N                processes that read pictures; --data.cache_mb keeps decoded ones
  --optimizer.base_lr X           learning rate
  --detector.backbone NAME        resnet18, resnet34, resnet50, resnet101 or darknet
  --detector.channel_sparsity X   width of the network, a part of the full one
  --detector.assigner NAME        SingleGrid, NearbyGrid, AllGrid or TaskAligned
  --detector.assigner.match_iou_thres X

  --SECTION.help                  all options of a section: data, detector, optimizer, schedule, ema,
                                  trainer, evaluation; --detector.assigner.help NAME for one class
  --print_config                  print the whole configuration and stop

Example:  boxmatch train --config recipes/own_voc.yaml --data.root my_pictures --output runs/first
"""


def run(arguments: Sequence[str]) -> int:
    """Train, or print what was asked for."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    from boxmatch.commands.parser import parse, section_help
    from boxmatch.commands.training import train, train_parser

    if section_help("train", arguments):
        return 0
    parser = train_parser("train")
    train(parser, parse(parser, resumed_arguments(arguments)), "train")
    return 0


def resumed_arguments(arguments: Sequence[str]) -> list[str]:
    """With `--resume RUN` and no `--config`, the configuration of that run comes first.

    Raises:
        UsageError: there is no such run.
    """
    from boxmatch.commands.parser import config_files
    from boxmatch.commands.run_folders import CONFIG

    values = [arguments[place + 1] for place, flag in enumerate(arguments[:-1]) if flag == "--resume"]
    values += [flag.partition("=")[2] for flag in arguments if flag.startswith("--resume=")]
    if not values:
        return list(arguments)
    config = Path(values[-1]) / CONFIG
    if not config.is_file():
        raise UsageError(f"cannot resume {values[-1]}: there is no run, its {CONFIG} is missing")
    return list(arguments) if config_files(arguments) else ["--config", str(config), *arguments]
