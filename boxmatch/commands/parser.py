"""Options of the commands: the constructors of detector, data and training, as flags and as YAML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_loader

from boxmatch.commands.errors import UsageError
from boxmatch.commands.suggestions import explain_parser_error
from boxmatch.data.module import DataModule
from boxmatch.metrics import EvaluationSettings
from boxmatch.models.dense import DenseDetector
from boxmatch.models.detector import Detector
from boxmatch.models.faster_rcnn import FasterRCNN
from boxmatch.models.yolo import YOLO
from boxmatch.strict_yaml import load_yaml
from boxmatch.train import EMAOptions, OptimizerOptions, ScheduleOptions, TrainerOptions

set_loader("strict_yaml", load_yaml, exceptions=(yaml.YAMLError,))

# What a configuration without `detector` trains. The parts are named, so that their options can be given
# alone: `--detector.assigner.match_iou_thres 0.1`.
DEFAULT_DETECTOR = {
    "class_path": "boxmatch.models.yolo.YOLO",
    "init_args": {
        "assigner": {"class_path": "boxmatch.assign.NearbyGrid"},
        "loss": {"class_path": "boxmatch.losses.yolo.YOLOLoss"},
        "postprocess": {"class_path": "boxmatch.postprocess.PostProcess"},
    },
}

# The parts that other detectors are built of if nothing else is said; named for the same reason.
DENSE_DETECTOR = {
    "class_path": "boxmatch.models.dense.DenseDetector",
    "init_args": {
        "assigner": {"class_path": "boxmatch.assign.ATSS"},
        "loss": {"class_path": "boxmatch.losses.DenseLoss"},
        "postprocess": {"class_path": "boxmatch.dense_postprocess.DensePostProcess"},
    },
}

FASTER_RCNN = {
    "class_path": "boxmatch.models.faster_rcnn.FasterRCNN",
    "init_args": {
        "loss": {"class_path": "boxmatch.losses.RegionLoss"},
        "postprocess": {
            "class_path": "boxmatch.postprocess.PostProcess",
            "init_args": {"score_threshold": 0.05, "nms_iou": 0.5},
        },
    },
}

_PARTS = {DenseDetector.__name__: DENSE_DETECTOR, FasterRCNN.__name__: FASTER_RCNN}

SECTIONS: Mapping[str, type] = {
    "data": DataModule,
    "optimizer": OptimizerOptions,
    "schedule": ScheduleOptions,
    "ema": EMAOptions,
    "trainer": TrainerOptions,
    "evaluation": EvaluationSettings,
}


def config_parser(command: str) -> ArgumentParser:
    """Parser of everything a configuration file may hold; commands add their own options to it."""
    parser = ArgumentParser(
        prog=f"boxmatch {command}", exit_on_error=False, parser_mode="strict_yaml", allow_abbrev=False
    )
    parser.add_argument("--config", action="config", help="YAML file; later files and options win")
    parser.add_subclass_arguments(Detector, "detector", help="the network and how it is taught")
    parser.set_defaults({"detector": DEFAULT_DETECTOR})
    for name, section in SECTIONS.items():
        parser.add_class_arguments(section, name)
    parser.add_argument("--seed", type=int, default=0, help="number that all randomness follows from")
    parser.link_arguments("data.class_names", "detector.init_args.class_names", apply_on="instantiate")
    parser.link_arguments("seed", "data.seed")
    return parser


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Read flags and files.

    Raises:
        UsageError: a key, class name or value is wrong; the text names the nearest valid ones.
    """
    for file in config_files(arguments):
        _check_file(Path(file))
    # Defaults of another class must not survive in the place of those of the chosen one.
    named = _detector_class(arguments).rpartition(".")[2]
    if named in _PARTS:
        parser.set_defaults({"detector": _PARTS[named]})
    try:
        return parser.parse_args(list(arguments))
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise UsageError(explain_parser_error(str(error), option_names(parser))) from error


def _detector_class(arguments: Sequence[str]) -> str:
    """The class that files and flags name for the detector, the last one; empty if none does."""
    named = ""
    for file in config_files(arguments):
        content = load_yaml(Path(file).read_text(encoding="utf-8")) or {}
        detector = content.get("detector")
        if isinstance(detector, dict):
            detector = detector.get("class_path", "")
        named = detector if isinstance(detector, str) and detector else named
    for flag in ("--detector", "--detector.class_path"):
        for place, argument in enumerate(arguments):
            if argument == flag and place + 1 < len(arguments):
                named = arguments[place + 1]
            elif argument.startswith(f"{flag}="):
                named = argument.partition("=")[2]
    return named


def _check_file(file: Path) -> None:
    """Raise UsageError, with the file's name, unless a configuration file is YAML of named options."""
    if not file.is_file():
        raise UsageError(f"there is no configuration file {file}; recipes to start from are in recipes/")
    try:
        content = load_yaml(file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise UsageError(f"{file}{place}: {said}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error
    if content is not None and not isinstance(content, dict):
        raise UsageError(f"{file}: expected lines like 'seed: 1', got a {type(content).__name__}")


def config_files(arguments: Sequence[str]) -> list[str]:
    """Values of `--config` and `--config=`."""
    files = [arguments[place + 1] for place, flag in enumerate(arguments[:-1]) if flag == "--config"]
    return files + [flag.partition("=")[2] for flag in arguments if flag.startswith("--config=")]


def instantiate(config: Namespace, section: str, **computed: Any) -> Any:
    """Build the object of one section.

    Args:
        config: what `parse` gave.
        section: "detector" or a key of `SECTIONS`.
        computed: arguments that are not in the configuration, such as the class names of a detector.

    Raises:
        ValueError: the constructor refuses an option.
    """
    parser = ArgumentParser(exit_on_error=False, parser_mode="strict_yaml")
    part = config[section].clone()
    arguments = part.init_args if section == "detector" else part
    for name, value in computed.items():
        arguments[name] = value
    if section == "detector":
        parser.add_subclass_arguments(Detector, section)
    else:
        parser.add_class_arguments(SECTIONS[section], section)
    try:
        return parser.instantiate(Namespace(**{section: part}))[section]
    except ValueError as error:
        # The parser buries what the constructor says under everything that it was given.
        cause = error.__cause__ or error.__context__
        raise (cause if isinstance(cause, ValueError) else error) from None


def option_names(parser: ArgumentParser) -> list[str]:
    """Dotted names of all options, those of the default classes included."""
    names = {key for key, _ in parser.get_defaults().items(branches=True)}
    for action in parser._actions:
        names |= {flag.removeprefix("--") for flag in action.option_strings if flag.startswith("--")}
    # Options of a class may be written without `init_args`, and that is how people write them.
    hidden = ("class_path", "print_shtab")
    return sorted(name.replace(".init_args", "") for name in names if not name.endswith(hidden))


def section_help(command: str, arguments: Sequence[str]) -> bool:
    """Print the options of one section for `--data.help` and the like; False if none is asked for.

    `--detector.help CLASS` and `--detector.assigner.help CLASS` are left to the parser.
    """
    for place, argument in enumerate(arguments):
        name = argument.removeprefix("--").removesuffix(".help")
        following = arguments[place + 1] if place + 1 < len(arguments) else ""
        named = bool(following) and not following.startswith("-")
        if argument != f"--{name}.help" or (name not in SECTIONS and (name != "detector" or named)):
            continue
        usage = f"boxmatch {command} ... --{name}.OPTION VALUE"
        parser = ArgumentParser(usage=usage, add_help=False)
        computed = {"class_names"} if name == "detector" else set()
        parser.add_class_arguments(SECTIONS.get(name, YOLO), name, skip=computed)
        parser.print_help()
        return True
    return False


def dump(parser: ArgumentParser, config: Namespace, *dropped: str) -> str:
    """A configuration as YAML that `--config` reads again, without the named entries."""
    kept = config.clone()
    for key in ("config", *dropped):
        kept.pop(key, None)
    return str(parser.dump(kept, skip_validation=True))
