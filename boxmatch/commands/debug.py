"""`boxmatch debug`: draw which places of the network learn which box."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from boxmatch.commands.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import Namespace

HELP = """\
usage: boxmatch debug --data.root DIR [--config FILE.yaml] [options]
       boxmatch debug --run RUN_DIR [options]

Draws the assignment over pictures of the training stream, as the loss will see it: the grid of each
level, the boxes, and every positive in the colour of the box it learns, with one marker per anchor. A box
without any positive is thick, dashed and red. No trained weights are needed.

Writes pictures/batch0_picture00.png ..., assignment.json (every box with its positives per level) and
boxes.csv, and prints positives per level and class.

  --config FILE.yaml          recipe or config.yaml of a run
  --data.root DIR             folder in VOC, COCO or YOLO layout
  --batches N                 batches to draw (default: 1)
  --pictures N                pictures to draw of each batch (default: 4; all are counted)
  --explain N                 draw why the N boxes with the fewest positives of each picture got no more;
                              for soft assigners (DualWeight, AutoAssign) also heat maps of their weights
  --output DIR                (default: runs/debug-001, -002, ...)
  --run RUN_DIR, --weights F  weights and settings of a run, for assigners that look at predictions
  --detector.assigner NAME    the method; --detector.assigner.match_iou_thres X its threshold
  --data.augment.mosaic_p 0   whole pictures instead of mosaics
  --SECTION.help              all options of a section, as in boxmatch train

Example:  boxmatch debug --config recipes/own_voc.yaml --data.root my_pictures --data.batch_size 8
"""


def run(arguments: Sequence[str]) -> int:
    """Draw, or print what was asked for."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    from boxmatch.commands.parser import config_parser, parse, section_help
    from boxmatch.commands.run_folders import with_run_config

    if section_help("debug", arguments):
        return 0
    parser = config_parser("debug")
    parser.add_argument("--batches", type=int, default=1, help="batches to draw")
    parser.add_argument("--pictures", type=int, default=4, help="pictures to draw of each batch")
    parser.add_argument("--explain", type=int, default=0, help="boxes per picture to explain")
    parser.add_argument("--output", type=str | None, default=None, help="folder to write into")
    parser.add_argument("--run", type=str | None, default=None, help="run with weights")
    parser.add_argument("--weights", type=str | None, default=None, help="weight file")
    config = parse(parser, with_run_config(arguments))
    if config.batches < 1 or config.pictures < 0 or config.explain < 0:
        raise UsageError(
            "expected --batches 1 or more, --pictures and --explain 0 or more, got "
            f"{config.batches}, {config.pictures}, {config.explain}"
        )
    return _debug(config)


def _debug(config: "Namespace") -> int:
    from itertools import islice

    from boxmatch.commands.assignment_report import AssignmentReport
    from boxmatch.commands.data_check import checked_data
    from boxmatch.commands.parser import instantiate
    from boxmatch.commands.run_folders import load, output_folder, weight_file

    trained = load(weight_file(config.run, config.weights)) if config.run or config.weights else None
    # Class names come from the weights where there are some, so that labels mean the same.
    computed = {} if trained is None else {"class_names": list(trained.class_names)}
    data = checked_data(config, speak=False, **computed)
    detector = instantiate(config, "detector", class_names=list(data.class_names))
    if trained is not None:
        trained.assigner = detector.assigner
        detector = trained
    elif detector.assigner.uses_predictions:
        print("The network is untrained; give --run to see what a trained one is taught.")
    report = AssignmentReport(output_folder(config.output, "debug"), detector, explain=config.explain)
    for number, batch in enumerate(islice(iter(data.train_dataloader()), config.batches)):
        report.add(batch, number, config.pictures)
    report.write()
    print(report.text())
    print(f"Written to {report.folder}")
    return 0
