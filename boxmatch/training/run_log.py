"""What a run says: lines on the screen and, with the time, in train.log."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

_LOGGER = logging.getLogger("boxmatch.train")

# Lightning's remarks on what `fit` does on purpose, and deprecations inside its own code.
_EXPECTED_WARNINGS = (
    r".*does not have many workers.*",
    r".*is smaller than the logging interval.*",
    r".*treespec.*",
    r".*You are using a CUDA device.*Tensor Cores.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*srun.*",
    r".*module\(s\) in eval mode at the start of training.*",  # frozen stages and norms are meant to be
    r".*You have overridden `transfer_batch_to_device`.*",
)


class _Console(logging.Handler):
    """Prints above a running progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm.auto import tqdm

        try:
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has gone (`| head`); the run goes on and train.log has every line.
            return


def is_first_process() -> bool:
    """Whether this process is the one that writes; known before any Trainer is made."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


def say(text: str) -> None:
    """One line for people, on the first process only."""
    if is_first_process():
        _LOGGER.info(text)


@contextmanager
def run_log(file: Path | None) -> Iterator[None]:
    """Lines of `say` go to the screen and to `file`, if any; Lightning is told to be quiet."""
    handlers: list[logging.Handler] = [_Console()]
    if file is not None and is_first_process():
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    lightning = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in lightning]
    before, propagate = _LOGGER.level, _LOGGER.propagate
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False
    for handler in handlers:
        _LOGGER.addHandler(handler)
    for logger in lightning:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for pattern in _EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=pattern)
            yield
    finally:
        for handler in handlers:
            _LOGGER.removeHandler(handler)
            handler.close()
        _LOGGER.setLevel(before)
        _LOGGER.propagate = propagate
        for logger, level in zip(lightning, levels, strict=True):
            logger.setLevel(level)
