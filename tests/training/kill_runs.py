"""Trains the toy once without a break, and once per kill step with SIGKILL before that step and a resume; prints what is left.

Run as a program by test_resume.py: every training is a fork of this process, which has imported everything already.
"""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from toy import ToyData, ToyDetector  # noqa: E402

from boxmatch.train import EMAOptions, ScheduleOptions, TrainerOptions, fit  # noqa: E402
from boxmatch.training import checkpoint_io  # noqa: E402

EPOCHS, BATCHES = 3, 4


def digest(value: Any) -> str:
    """SHA-256 over every tensor and value of nested containers, in order of keys."""
    result = hashlib.sha256()

    def walk(entry: Any) -> None:
        if isinstance(entry, torch.Tensor):
            result.update(entry.contiguous().numpy().tobytes())
        elif isinstance(entry, dict):
            for key in sorted(entry, key=str):
                result.update(str(key).encode())
                walk(entry[key])
        elif isinstance(entry, (list, tuple)):
            for part in entry:
                walk(part)
        else:
            result.update(repr(entry).encode())

    walk(value)
    return result.hexdigest()


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KilledDetector(ToyDetector):
    """Dies before training batch `at`, counted from 0."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self.at, self.calls = at, 0

    def losses(self, *arguments: Any) -> dict[str, torch.Tensor]:
        if self.calls == self.at:
            kill_self()
        self.calls += 1
        return super().losses(*arguments)


def train(run: Path, *, at: int | None = None, resume: bool = False, accumulate: int = 1) -> None:
    torch.manual_seed(0)
    fit(
        KilledDetector(at),
        ToyData(count=4 * BATCHES),
        schedule=ScheduleOptions(warmup_epochs=1),
        ema=EMAOptions("constant", 0.9, warmup_steps=4),
        trainer=TrainerOptions(
            max_epochs=EPOCHS,
            accelerator="cpu",
            devices=1,
            progress=False,
            tensorboard=False,
            checkpoint_every_n_steps=1,
            log_every_n_steps=1,
            accumulate_grad_batches=accumulate,
        ),
        seed=5,
        **({"resume": run} if resume else {"output": run}),
    )


def die_while_saving(event: int) -> None:
    """Kill this process at the given replacement of a file."""
    replace, count = os.replace, 0

    def counting(*arguments: Any) -> None:
        nonlocal count
        if count == event:
            kill_self()
        count += 1
        replace(*arguments)

    checkpoint_io.os.replace = counting  # type: ignore[assignment]


def in_fork(work: Callable[[], None]) -> int:
    """Status of a child process that did the work; its output goes nowhere."""
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def left(run: Path) -> dict[str, str]:
    """Digests of weights, average, optimiser and rows; what differs by nature (times) is left out."""
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    columns = {}
    for name in ("metrics.csv", "steps.csv"):
        rows = [line.split(",") for line in (run / name).read_text().splitlines()]
        kept = [i for i, column in enumerate(rows[0]) if column != "seconds"]
        columns[name] = digest([[row[i] for i in kept] for row in rows])
    random_states = [value for key, value in state["callbacks"].items() if key.startswith("RandomStates")]
    return {
        "weights": digest(state["state_dict"]),
        "optimizer": digest(state["optimizer_states"]),
        "schedule": digest(state["lr_schedulers"]),
        "random": digest(random_states),
        "step": str(state["global_step"]),
        "metrics.json": digest(json.loads((run / "metrics.json").read_text())),
        **columns,
    }


def main(folder: Path, kills: list[str]) -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for accumulate in sorted({kill.partition("/")[2] or "1" for kill in kills}):
        name = f"whole/{accumulate}"
        status = in_fork(lambda: train(folder / name, accumulate=int(accumulate)))  # noqa: B023
        results[name] = {"status": [status], **left(folder / name)}
    for kill in kills:
        where, _, accumulate = kill.partition("/")
        run, options = folder / f"killed_{where}_{accumulate}", {"accumulate": int(accumulate or 1)}
        kind, number = where[0], int(where[1:])

        def first() -> None:
            if kind == "f":  # noqa: B023
                die_while_saving(number)  # noqa: B023
            train(run, at=number if kind == "b" else None, **options)  # noqa: B023

        killed = in_fork(first)
        resumed = in_fork(lambda: train(run, resume=True, **options))  # noqa: B023
        results[kill] = {"status": [killed, resumed], **(left(run) if resumed == 0 else {})}
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
