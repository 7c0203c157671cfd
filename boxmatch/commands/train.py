"""`boxmatch train`: train a detector on a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boxmatch.commands.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

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
  --detector.assigner NAME        SingleGrid, NearbyGrid or AllGrid
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
    from boxmatch.commands.parser import config_parser, parse, section_help

    if section_help("train", arguments):
        return 0
    parser = config_parser("train")
    parser.add_argument("--output", type=str | None, default=None, help="run folder")
    parser.add_argument("--resume", type=str | None, default=None, help="run folder to go on with")
    return _train(parser, parse(parser, resumed_arguments(arguments)))


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


def _train(parser: "ArgumentParser", config: "Namespace") -> int:
    from boxmatch.commands.data_check import checked_data
    from boxmatch.commands.parser import dump, instantiate
    from boxmatch.commands.results import closing_lines, result_table
    from boxmatch.commands.run_folders import CONFIG, output_folder
    from boxmatch.commands.run_pictures import write_pictures
    from boxmatch.train import fit
    from boxmatch.training.run_log import is_first_process

    folder = output_folder(config.output or config.resume, "train")
    if not config.resume and (folder / CONFIG).exists() and is_first_process():
        raise UsageError(
            f"{folder} already holds a run; go on with --resume {folder} or give another --output"
        )
    data = checked_data(config, speak=is_first_process())
    detector = instantiate(config, "detector", class_names=list(data.class_names))
    sections = ("optimizer", "schedule", "ema", "trainer", "evaluation")
    options = {name: instantiate(config, name) for name in sections}
    if is_first_process() and not config.resume:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(dump(parser, config, "output", "resume"), encoding="utf-8")
    result = fit(detector, data, output=folder, seed=config.seed, resume=config.resume, **options)
    if is_first_process():
        write_pictures(folder, result.detector, data)
        print(result_table(result.last, result.best))
        print(closing_lines(folder))
    return 0
