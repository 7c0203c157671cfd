"""Commands as a user types them."""

import pytest

from boxmatch.cli import main

# Options that make a run take a second.
TINY = [
    "--data.image_size=96",
    "--data.batch_size=8",
    "--detector.channel_sparsity=0.25",
    "--trainer.max_epochs=1",
    "--trainer.progress=false",
    "--trainer.tensorboard=false",
]


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and message of a command that cannot work; no traceback may be in it."""
    code = main(list(arguments))
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return code, message
