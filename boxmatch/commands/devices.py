"""Where a command computes."""

import torch

from boxmatch.commands.errors import EXIT_ENVIRONMENT, CommandError, UsageError


def find_device(name: str | None) -> torch.device:
    """The named device, or a GPU if there is one, or the CPU.

    Raises:
        UsageError: there is no kind of device with that name.
        CommandError: this machine does not have it.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device: expected cpu, cuda or cuda:N, got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CommandError(
            f"--device {name}: PyTorch can use {torch.cuda.device_count()} GPUs of this machine; take cpu",
            EXIT_ENVIRONMENT,
        )
    return device
