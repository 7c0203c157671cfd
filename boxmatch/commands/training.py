"""What `boxmatch train` and `boxmatch demo` do: check the data, train, leave pictures, print the table."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from boxmatch.commands.data_check import checked_data
from boxmatch.commands.errors import UsageError
from boxmatch.commands.parser import config_parser, dump, instantiate
from boxmatch.commands.results import closing_lines, result_table
from boxmatch.commands.run_folders import CONFIG, output_folder
from boxmatch.commands.run_pictures import write_pictures
from boxmatch.train import RunResult, fit
from boxmatch.training.run_log import is_first_process


def train_parser(command: str) -> ArgumentParser:
    """Everything a configuration may hold, and where the run goes."""
    parser = config_parser(command)
    parser.add_argument("--output", type=str | None, default=None, help="run folder")
    parser.add_argument("--resume", type=str | None, default=None, help="run folder to go on with")
    return parser


def refuse_used(folder: Path) -> None:
    """Raise UsageError if a folder already holds a run."""
    if (folder / CONFIG).exists() and is_first_process():
        raise UsageError(
            f"{folder} already holds a run; go on with --resume {folder} or give another --output"
        )


def train(parser: ArgumentParser, config: Namespace, kind: str) -> RunResult:
    """Train as a configuration says.

    Args:
        parser: what read the configuration; writes it into the run folder.
        config: the configuration.
        kind: first part of the name of a run folder that was not given.

    Raises:
        UsageError: the folder holds a run and none is resumed.
        DataError: the data cannot be used.
    """
    folder = output_folder(config.output or config.resume, kind)
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
        # The run can then be measured and resumed from any working directory.
        config.data.root = str(Path(config.data.root).resolve())
        (folder / CONFIG).write_text(dump(parser, config, "output", "resume"), encoding="utf-8")
    result = fit(detector, data, output=folder, seed=config.seed, resume=config.resume, **options)
    if is_first_process():
        write_pictures(folder, result.detector, data)
        print(f"\n{result_table(result.last, result.best)}\n\n{closing_lines(folder)}")
    return result
