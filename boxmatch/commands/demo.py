"""`boxmatch demo`: from nothing to a trained detector, its figures and its pictures."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boxmatch.commands.arguments import PlainParser
from boxmatch.commands.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import Namespace

HELP = """\
usage: boxmatch demo [options]

Draws a data set of shapes, trains a small YOLO on it (two minutes on two cores), measures it on pictures
it has not seen, and leaves a run folder with figures and pictures. Needs no data, network or GPU.

  --output DIR     (default: runs/demo-001, -002, ...); the data lies in DIR/shapes, in VOC layout
  --epochs N       (default: 20, fewer where that would take more than three minutes)
  --train N        pictures to train on (default: 240)
  --val N          pictures to measure on (default: 60)
  --image_size N   side of the pictures (default: 192)
  --seed N         all randomness follows from it (default: 0)
"""

# The recipe for own pictures (recipes/own_voc.yaml) at a quarter of the width, anchors for small pictures.
# Measured in two runs: AP@0.5 0.70 and 0.79 after 8 epochs, 0.86 and 0.92 after 12, 0.94 after 20.
OPTIONS = (
    "--detector.channel_sparsity=0.25",
    "--detector.activation=silu",
    "--detector.anchors=[[[16, 16]], [[40, 40]], [[80, 80]]]",
    "--detector.method=nearby_grid",
    "--detector.wh_decode=sigmoid4",
    "--detector.head_bias=true",
    "--detector.prior_probability=0.01",
    "--detector.assigner=TaskAligned",
    "--detector.loss.iou_loss_type=ciou",
    "--detector.loss.focal_loss_gamma=0",
    "--detector.loss.assign_conf_method=constant",
    "--detector.loss.objectness_average=positives",
    "--detector.loss.box_average=all",
    "--detector.loss.lambda_coord=2",
    "--detector.loss.sum_classes=true",
    "--detector.postprocess.nms_iou=0.5",
    "--data.batch_size=8",
    "--data.cache_mb=200",
    "--data.augment.mosaic_p=0.5",
    "--data.augment.close_mosaic_epochs=3",
    "--data.augment.randscale=[-0.3, 0.3]",
    "--optimizer.name=adamw",
    "--optimizer.base_lr=0.02",
    "--schedule.warmup_epochs=2",
    "--ema.kind=constant",
    "--ema.decay=0.99",
    "--ema.warmup_steps=50",
    "--trainer.check_val_every_n_epoch=4",
    "--trainer.channels_last=true",
    "--trainer.tensorboard=false",
)
MOST_EPOCHS = 20
LEAST_EPOCHS = 10
# Seconds of steps; with imports, drawing, augmentation and evaluation the whole stays below three minutes.
BUDGET = 130


def run(arguments: Sequence[str]) -> int:
    """Run the demonstration, or print the help."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    parser = PlainParser("demo")
    parser.add_argument("--output")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--train", type=int, default=240)
    parser.add_argument("--val", type=int, default=60)
    parser.add_argument("--image_size", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse(arguments)
    for name, least in (("epochs", 1), ("train", 16), ("val", 1), ("seed", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"--{name}: expected {least} or more, got {value}")
    return _demo(options)


def _demo(options: argparse.Namespace) -> int:
    from boxmatch.commands.parser import parse
    from boxmatch.commands.run_folders import output_folder
    from boxmatch.commands.training import refuse_used, train, train_parser
    from boxmatch.data.shapes import draw_shapes

    folder = output_folder(options.output, "demo")
    refuse_used(folder)
    print(f"Drawing {options.train + options.val} pictures of shapes into {folder / 'shapes'}", flush=True)
    root = draw_shapes(
        folder / "shapes", train=options.train, val=options.val, size=options.image_size, seed=options.seed
    )
    own = {
        "data.root": root,
        "data.image_size": options.image_size,
        "trainer.max_epochs": options.epochs or MOST_EPOCHS,
        "seed": options.seed,
        "output": folder,
    }
    parser = train_parser("demo")
    config = parse(parser, [*OPTIONS, *(f"--{name}={value}" for name, value in own.items())])
    choose_speed(config, fixed_epochs=options.epochs is not None)
    train(parser, config, "demo")
    print(next_steps(folder))
    return 0


def choose_speed(config: "Namespace", *, fixed_epochs: bool) -> None:
    """Set number format and threads that are fastest here, and as many epochs as the time allows."""
    import torch

    from boxmatch.commands.data_check import checked_data
    from boxmatch.commands.parser import instantiate
    from boxmatch.commands.step_time import find_speed

    data = checked_data(config, speak=False)
    detector = instantiate(config, "detector", class_names=list(data.class_names))
    batch = next(iter(data.train_dataloader()))
    speed = find_speed(detector, batch)
    config.trainer.precision = speed.precision
    torch.set_num_threads(speed.threads)
    steps = max(len(data.annotations("train")) // config.data.batch_size, 1)
    if not fixed_epochs:
        affordable = int(BUDGET / max(speed.seconds * steps, 1e-6))
        config.trainer.max_epochs = min(max(affordable, LEAST_EPOCHS), MOST_EPOCHS)
    epochs = config.trainer.max_epochs
    about = f", about {epochs * steps * speed.seconds:.0f} s of processor time" if speed.seconds else ""
    print(
        f"Training {epochs} epochs of {steps} steps in {speed.precision}, {speed.threads} thread(s){about}\n"
    )


def next_steps(folder: Path) -> str:
    """Three commands that go on from the demonstration."""
    pictures = folder / "shapes" / "VOC2007" / "JPEGImages"
    other = f"{folder}-nearby-grid"
    return f"""
Try next:
  boxmatch predict {pictures} --run {folder}
  boxmatch debug --run {folder}
  boxmatch train --config {folder / "config.yaml"} --detector.assigner NearbyGrid --output {other}
Your own pictures, laid out like {folder / "shapes"}, or in COCO or YOLO layout:
  boxmatch train --data.root YOUR_FOLDER"""
