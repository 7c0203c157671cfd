"""`boxmatch val`: measure a trained detector."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from boxmatch.commands.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from boxmatch.data.module import DataModule
    from boxmatch.models.detector import Detector

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
  --multi_scale SIDES    look at several sizes, plain and mirrored, and merge by voting: shorter sides
                         like 320,416,512, or published (thirteen sizes of ATSS and PAA); one process
  --soft_vote            with it: keep merged boxes too, with lowered scores
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
    from boxmatch.commands.run_folders import with_run_config

    if section_help("val", arguments):
        return 0
    parser = config_parser("val")
    for name in ("run", "weights", "output"):
        parser.add_argument(f"--{name}", type=str | None, default=None)
    parser.add_argument("--split", type=str, default="val")
    for name, kind in (("score_threshold", float), ("nms_iou", float), ("max_detections", int)):
        parser.add_argument(f"--{name}", type=kind | None, default=None)
    parser.add_argument("--multi_scale", type=str | None, default=None)
    parser.add_argument("--soft_vote", action="store_true")
    config = parse(parser, with_run_config(arguments))
    if config.split not in ("train", "val", "test"):
        raise UsageError(f"--split: expected train, val or test, got {config.split!r}")
    if config.soft_vote and config.multi_scale is None:
        raise UsageError("--soft_vote merges the sizes of --multi_scale; give both or none")
    return _val(config)


def _val(config: "Namespace") -> int:
    import json

    from boxmatch.commands.data_check import checked_data
    from boxmatch.commands.parser import instantiate
    from boxmatch.commands.results import evaluation_table
    from boxmatch.commands.run_folders import load, output_folder, weight_file
    from boxmatch.train import validate
    from boxmatch.training.run_folder import write_atomically
    from boxmatch.training.run_log import is_first_process

    thresholds: dict[str, Any] = {
        name: config[name] for name in ("score_threshold", "nms_iou", "max_detections")
    }
    file = weight_file(config.run, config.weights)
    detector = load(file, **thresholds)
    choose_split(config)
    folder = output_folder(config.output, "val")
    # Class names come from the weights, so that labels mean the same.
    data = checked_data(config, speak=False, class_names=list(detector.class_names))
    options = {name: instantiate(config, name) for name in ("trainer", "evaluation")}
    split = "test" if config.split == "test" else "val"
    if config.multi_scale is None:
        result = validate(detector, data, split=split, output=folder, **options)
    else:
        result = _at_all_sizes(config, detector, data, split, options)
    if is_first_process():
        folder.mkdir(parents=True, exist_ok=True)
        record = {"weights": str(file), "data": config.data.root, "split": config.split, **result}
        write_atomically(folder / "metrics.json", json.dumps(record, indent=2) + "\n")
        print(evaluation_table(result))
        print(f"Written to {folder / 'metrics.json'}")
    return 0


def _at_all_sizes(
    config: "Namespace", detector: "Detector", data: "DataModule", split: str, options: dict[str, Any]
) -> dict[str, Any]:
    from boxmatch.commands.devices import find_device
    from boxmatch.commands.multi_scale import evaluate_files, read_scales
    from boxmatch.multi_scale import MultiScale

    if config.trainer.devices not in (1, "auto"):
        raise UsageError("--multi_scale runs in one process; set --trainer.devices to 1")
    device = find_device("cpu" if config.trainer.accelerator == "cpu" else None)
    multi_scale = MultiScale(
        detector.to(device),
        read_scales(config.multi_scale),
        soft=config.soft_vote,
        batch_size=config.data.batch_size,
        fill=data.fill,
    )
    result = evaluate_files(multi_scale, data.annotations(split), options["evaluation"])
    return {**result, "multi_scale": config.multi_scale, "soft_vote": config.soft_vote}


def choose_split(config: "Namespace") -> None:
    """Make the data module read what `--split` asks for."""
    if config.split == "train":
        config.data.val = config.data.train if config.data.train is not None else "train"
    elif config.split == "test" and config.data.test is None:
        # With `val` named, the test split is read only when it is named too; without, both are looked for.
        config.data.val = None
