"""`boxmatch check`: look through a data set."""

from collections.abc import Sequence
from pathlib import Path

from boxmatch.commands.errors import EXIT_DATA

HELP = """\
usage: boxmatch check --data.root DIR [--config FILE.yaml] [options]

Reads all annotations and the header of every picture, prints the classes with their counts per split,
and names every problem with file and object.

  --data.root DIR        folder in VOC, COCO or YOLO layout
  --config FILE.yaml     recipe or config.yaml of a run
  --output FILE.json     also write the report as JSON
  --data.help            all options of the data, with the policy of each kind of problem

Exit code 0: the data can be used; 3: it cannot.

Example:  boxmatch check --data.root my_pictures
"""


def run(arguments: Sequence[str]) -> int:
    """Check, or print what was asked for."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    from boxmatch.commands.data_check import check_data
    from boxmatch.commands.parser import config_parser, instantiate, parse, section_help
    from boxmatch.training.run_folder import write_atomically

    if section_help("check", arguments):
        return 0
    parser = config_parser("check")
    parser.add_argument("--output", type=str | None, default=None)
    config = parse(parser, arguments)
    report = check_data(instantiate(config, "data"))
    print(report.text())
    if config.output:
        Path(config.output).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(config.output), report.to_json() + "\n")
        print(f"Written to {config.output}")
    return EXIT_DATA if report.errors else 0
