"""The `boxmatch` program: picks the command; what a user can cause becomes one message and an exit code."""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from boxmatch.commands.errors import EXIT_INTERRUPTED, EXIT_USAGE, explain

# Module of `boxmatch.commands` and the line of the help screen; imported only when the command is called.
COMMANDS = {
    "demo": "train on drawn shapes for two or three minutes: no data, network or GPU needed",
    "check": "look through a data set and name every problem in it",
    "train": "train a detector on your pictures",
    "val": "measure a trained detector",
    "predict": "find the objects in pictures",
    "debug": "draw which places of the network learn which box",
    "convert": "read a checkpoint of the original project",
    "export": "write a detector as ONNX or as a program of torch.export",
    "bench": "time the assignment, the data pipeline or a training step",
    "check-assigner": "try on your own assigner what must hold for every one",
}

HELP = """\
boxmatch trains object detectors and changes one thing at a time:
how boxes are matched to the places of the network that learn them.

usage: boxmatch COMMAND [options]

{commands}

  boxmatch COMMAND --help   explains one command
  boxmatch --version        prints the version
  --traceback               with any command: show the whole traceback of an error

Start with:  boxmatch demo
"""


def help_text() -> str:
    """The help screen, one line per command."""
    return HELP.format(commands="\n".join(f"  {name:<14} {line}" for name, line in COMMANDS.items()))


def version_text() -> str:
    """Name and installed version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"boxmatch {version('boxmatch')}"
    except PackageNotFoundError:
        return "boxmatch (not installed, run from its source folder)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 good, else as in `boxmatch.commands.errors`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--traceback" in arguments or os.environ.get("BOXMATCH_DEBUG", "0") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--traceback"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0 if arguments else EXIT_USAGE
    if arguments[0] == "--version":
        print(version_text())
        return 0
    if arguments[0] not in COMMANDS:
        return _unknown_command(arguments[0])
    try:
        command = importlib.import_module(f"boxmatch.commands.{arguments[0].replace('-', '_')}")
        return int(command.run(arguments[1:]))
    except KeyboardInterrupt:
        print("boxmatch: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone, and closing stdout must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        code, message = explain(error)
        if show_traceback or message is None:
            traceback.print_exc()
        print(
            f"boxmatch {arguments[0]}: {message or 'this is a fault of boxmatch, please report it'}",
            file=sys.stderr,
        )
        return code


def _unknown_command(name: str) -> int:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    print(
        f"boxmatch: unknown command '{name}'{hint}\n"
        f"The commands are: {', '.join(COMMANDS)}. Help: boxmatch --help",
        file=sys.stderr,
    )
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
