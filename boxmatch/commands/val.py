"""`boxmatch val`: measure a trained detector."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from boxmatch.commands.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import Namespace

HELP = """\
usage: boxmatch val --run RUN_DIR [--data.root DIR] [options]
       boxmatch val --weights FILE --data.root DIR [--config FILE.yaml] [options]

Measures COCO mean average precision in pixels of the files and writes it as JSON with its settings.

  --run RUN_DIR          best weights and data settings of a run
  --weights FILE         a .safetensors file (settings of the run it lies in, if it does)
  --data.root DIR        another data set with the same classes
  --split NAME           train, val or test (default: val)
  --output DIR           (default: runs/val-001, -002, ...)
  --score_threshold X    detections below do not count (default: as saved, 0.001)
  --nms_iou X            (default: as saved, 0.6)
  --max_detections N     per picture (default: as saved, 100)
  --evaluation.backend   faster_coco_eval or pycocotools
  --trainer.devices N    processes on this machine; --trainer.accelerator cpu|gpu
  --SECTION.help         all options of data, trainer or evaluation

Example:  boxmatch val --run runs/train-001 --split test
"""


def run(arguments: Sequence[str]) -> int:
    """Evaluate, or print what was asked for."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    from boxmatch.commands.parser import config_parser, parse, section_help

    if section_help("val", arguments):
        return 0
    parser = config_parser("val")
    for name in ("run", "weights", "output"):
        parser.add_argument(f"--{name}", type=str | None, default=None)
    parser.add_argument("--split", type=str, default="val")
    for name, kind in (("score_threshold", float), ("nms_iou", float), ("max_detections", int)):
        parser.add_argument(f"--{name}", type=kind | None, default=None)
    config = parse(parser, with_run_config(arguments))
    if config.split not in ("train", "val", "test"):
        raise UsageError(f"--split: expected train, val or test, got {config.split!r}")
    return _val(config)


def with_run_config(arguments: Sequence[str]) -> list[str]:
    """The configuration of the run that `--run` or `--weights` names comes before what the user gave."""
    from pathlib import Path

    from boxmatch.commands.run_folders import CONFIG

    for place, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag in ("--run", "--weights"):
            value = value or (arguments[place + 1] if place + 1 < len(arguments) else "")
            config = Path(value) / CONFIG if flag == "--run" else Path(value).parent / CONFIG
            if config.is_file():
                return ["--config", str(config), *arguments]
    return list(arguments)


def _val(config: "Namespace") -> int:
    import json

    from boxmatch.commands.parser import instantiate
    from boxmatch.commands.results import evaluation_table
    from boxmatch.commands.run_folders import first_process, load, output_folder, weight_file

    thresholds: dict[str, Any] = {
        name: config[name] for name in ("score_threshold", "nms_iou", "max_detections")
    }
    file = weight_file(config.run, config.weights)
    detector = load(file, **thresholds)
    # `val` is the split the Trainer evaluates; class names come from the weights, so labels mean the same.
    config.data.val = config.data[config.split]
    data = instantiate(config, "data", class_names=list(detector.class_names))
    folder = output_folder(config.output, "val")
    result = evaluate_detector(detector, data, config)
    if first_process():
        folder.mkdir(parents=True, exist_ok=True)
        record = {"weights": str(file), "data": config.data.root, "split": config.data.val, **result}
        (folder / "metrics.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(evaluation_table(result))
        print(f"Written to {folder / 'metrics.json'}")
    return 0


def evaluate_detector(detector: Any, data: Any, config: "Namespace") -> dict[str, Any]:
    """The evaluation of the whole split by the Trainer, over all its processes."""
    raise NotImplementedError
