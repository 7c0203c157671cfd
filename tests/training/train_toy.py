"""A run of the toy that torchrun can start: OUTPUT, and `kill` if rank 1 shall die in the fourth step."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from toy import ToyData
from two_processes import OPTIONS, Finder

from boxmatch.train import fit


class Dying(Finder):
    """Kills its process in the fourth step, on rank 1."""

    calls = 0

    def losses(self, *arguments: Any) -> dict[str, torch.Tensor]:
        self.calls += 1
        if self.calls == 4 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().losses(*arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind = Dying if "kill" in sys.argv else Finder
    fit(kind(), ToyData(), output=sys.argv[1], trainer=OPTIONS)
