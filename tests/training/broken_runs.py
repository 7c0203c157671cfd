"""Trains the toy without a break, then with breaks of all kinds and a resume after each; prints what is left.

Run as a program by test_resume.py: every training is a fork of this process, which has imported everything.
A break is written as its kind, a number, and optionally /batches to accumulate: b5 SIGKILL before batch 5, f5
SIGKILL before the 5th replacement of a file, i5 and t5 SIGINT and SIGTERM during batch 5, v1 SIGINT in the
evaluation of epoch 1.
"""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from toy import ToyData, ToyDetector

import boxmatch.train
from boxmatch.structures import Detections
from boxmatch.train import EMAOptions, ScheduleOptions, TrainerOptions, fit
from boxmatch.training import checkpoint_io

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


SIGNALS = {"b": signal.SIGKILL, "i": signal.SIGINT, "t": signal.SIGTERM, "v": signal.SIGINT}
evaluations = 0


class BrokenDetector(ToyDetector):
    """Sends a signal to its own process in training batch or evaluation `number`, counted from 0."""

    def __init__(self, kind: str, number: int) -> None:
        super().__init__()
        self.kind, self.number, self.calls = kind, number, 0

    def losses(self, *arguments: Any) -> dict[str, torch.Tensor]:
        if self.kind in "bit" and self.calls == self.number:
            os.kill(os.getpid(), SIGNALS[self.kind])
        self.calls += 1
        return super().losses(*arguments)

    def predict(self, images: torch.Tensor, *, sizes: torch.Tensor | None = None) -> list[Detections]:
        # The average is evaluated, a copy: only the module's count survives from one evaluation to the next.
        global evaluations
        if self.kind == "v" and evaluations == self.number * BATCHES:
            os.kill(os.getpid(), SIGNALS[self.kind])
        evaluations += 1
        return super().predict(images)


def train(run: Path, *, kind: str = "-", number: int = 0, resume: bool = False, accumulate: int = 1) -> None:
    torch.manual_seed(0)
    if kind == "f":
        die_while_saving(number)
    fit(
        BrokenDetector(kind, number),
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
            os.kill(os.getpid(), signal.SIGKILL)
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
        except KeyboardInterrupt:
            os._exit(130)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


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


def main(folder: Path, breaks: list[str]) -> None:
    """Print one JSON object: per break the exit codes of both halves and the digests of what is left."""
    torch.set_num_threads(1)
    boxmatch.train._draw = lambda folder: None  # type: ignore[assignment]  # curves take longer than these runs
    results: dict[str, Any] = {}
    for name in breaks:
        where, _, count = name.partition("/")
        accumulate = int(count or 1)
        whole, run = folder / f"whole_{accumulate}", folder / f"{where}_{accumulate}"
        if not whole.exists():
            code = in_fork(partial(train, whole, accumulate=accumulate))
            results[f"whole/{accumulate}"] = {"codes": [code], **left(whole)}
        broken = partial(train, run, kind=where[0], number=int(where[1:]), accumulate=accumulate)
        codes = [in_fork(broken), in_fork(partial(train, run, resume=True, accumulate=accumulate))]
        results[name] = {"codes": codes, **(left(run) if codes[1] == 0 else {})}
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
