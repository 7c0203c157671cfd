"""What `boxmatch bench step` measures."""

import argparse
import tempfile
from collections.abc import Sequence
from typing import Any

from boxmatch.bench.step import bench_step
from boxmatch.commands.data_check import checked_data
from boxmatch.commands.devices import find_device
from boxmatch.commands.parser import config_parser, instantiate, parse
from boxmatch.data.shapes import draw_shapes


def step_rows(options: argparse.Namespace, configured: Sequence[str]) -> list[Any]:
    """Measure a training step of a configuration; without data it works on drawn shapes."""
    extra = [
        f"--data.{name}={getattr(options, name)}"
        for name in ("image_size", "batch_size")
        if getattr(options, name)
    ]
    with tempfile.TemporaryDirectory() as folder:
        given = any(argument.startswith(("--data.root", "--config")) for argument in configured)
        if not given:
            draw_shapes(folder, train=2 * (options.batch_size or 16), val=1, size=options.image_size or 416)
            extra.append(f"--data.root={folder}")
        config = parse(config_parser("bench step"), [*configured, *extra])
        data = checked_data(config, speak=False)
        detector = instantiate(config, "detector", class_names=list(data.class_names))
        rows = bench_step(
            detector,
            data.train_dataloader(),
            steps=options.steps,
            device=str(find_device(options.device or "cpu")),
            precision=options.precision,
            optimizer=instantiate(config, "optimizer"),
            average=config.ema.kind != "none",
        )
    return list(rows)
