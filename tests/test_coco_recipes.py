"""The data and the schedule of every published recipe, as they stand, on a COCO folder drawn here."""

import csv
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from boxmatch.commands.parser import instantiate, parse
from boxmatch.commands.training import train_parser
from boxmatch.strict_yaml import load_yaml
from boxmatch.structures import Detections, Targets
from boxmatch.train import fit
from boxmatch.training.schedules import rate_factor

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
RECIPES = sorted(path for path in FOLDER.glob("*/*.yaml") if "instances_train2017" in path.read_text("utf-8"))

WIDE, TALL = (64, 48), (48, 64)
NAMES = {1: "person", 3: "car", 90: "toothbrush"}  # the numbers of COCO have gaps
EPOCH = 117_266  # pictures of train2017 with an object that is no crowd
GREY = 250  # of the pictures: nothing that is filled in is as bright

# Size and objects (number of the class, crowd) of each picture.
TRAIN = [
    (WIDE, [(1, 0), (90, 0)]),
    (WIDE, [(3, 0)]),
    (WIDE, []),
    (WIDE, [(1, 1)]),
    (WIDE, [(3, 0), (1, 1)]),
    (WIDE, [(90, 0)]),
    (TALL, [(1, 0)]),
    (TALL, [(3, 0), (3, 0)]),
]
VAL = [(WIDE, [(1, 0)]), (TALL, []), (TALL, [(3, 0), (90, 1)])]


def write_split(root: Path, split: str, pictures: list[Any]) -> None:
    (root / split).mkdir(parents=True)
    images, annotations = [], []
    for position, (size, objects) in enumerate(pictures):
        number = 7 * position + 3
        name = f"{number:012d}.jpg"
        Image.new("RGB", size, (GREY,) * 3).save(root / split / name)
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        for left, (category, crowd) in enumerate(objects):
            annotations.append(
                {
                    "id": 10 * len(annotations) + 5,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [left + 2, 4, 20, 30],
                    "area": 600,
                    "iscrowd": crowd,
                    "segmentation": {"size": list(size), "counts": []} if crowd else [],
                }
            )
    categories = [{"id": number, "name": name} for number, name in NAMES.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), "utf-8")


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of COCO 2017."""
    root = tmp_path_factory.mktemp("coco")
    write_split(root, "train2017", TRAIN)
    write_split(root, "val2017", VAL)
    return root


@dataclass(frozen=True)
class Seen:
    """Size of a batch, its boxes, and where its pictures are, which are bright."""

    size: tuple[int, int]
    targets: Targets | None
    pictures: list[tuple[int, int]]
    filled: set[tuple[int, ...]]


class Witness(nn.Module):
    """Learns nothing and remembers what it was shown."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        super().__init__()
        self.class_names = class_names
        self.layer = nn.Linear(1, 1)
        self.norm = nn.BatchNorm1d(1)
        self.trained: list[Seen] = []
        self.evaluated: list[tuple[Seen, list[list[int]]]] = []

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        self.trained.append(seen(images, targets))
        return {"nothing": self.norm(self.layer(torch.ones(2, 1))).sum()}

    def predict(self, images: Tensor, *, sizes: Tensor | None = None) -> list[Detections]:
        assert sizes is not None
        self.evaluated.append((seen(images, None), sizes.tolist()))
        nothing = torch.zeros(0)
        return [Detections(nothing.reshape(0, 4), nothing, nothing.long()) for _ in images]


def seen(images: Tensor, targets: Targets | None) -> Seen:
    bright = images.amin(1) > 200
    pictures = [(int(one.any(1).sum()), int(one.any(0).sum())) for one in bright]
    padding = images.permute(0, 2, 3, 1)[~bright]
    # Colours as one number each: thousands of times faster than unique rows.
    colors = (padding.long() * torch.tensor([1 << 16, 1 << 8, 1])).sum(1).unique().tolist()
    filled = {(color >> 16, color >> 8 & 255, color & 255) for color in colors}
    return Seen((images.shape[2], images.shape[3]), targets, pictures, filled)


@cache
def distinct() -> dict[str, list[str]]:
    """Recipes that say the same about everything but the detector."""
    groups: dict[str, list[str]] = {}
    for path in RECIPES:
        sections = {
            name: part for name, part in load_yaml(path.read_text("utf-8")).items() if name != "detector"
        }
        groups.setdefault(json.dumps(sections, sort_keys=True), []).append(str(path.relative_to(FOLDER)))
    return groups


@cache
def parsed(name: str) -> Any:
    return parse(train_parser("train"), ["--config", str(FOLDER / name), "--data.root", "nowhere"])


@pytest.mark.parametrize(
    "names", distinct().values(), ids=lambda names: f"{names[0]} and {len(names) - 1} more"
)
def test_the_data_and_schedule_of_a_published_recipe_run_on_coco(
    names: list[str], coco: Path, tmp_path: Path
):
    config = parsed(names[0]).clone()
    config.data.root, config.data.workers, config.data.batch_size = str(coco), 0, 2
    data = instantiate(config, "data")
    witness = Witness(tuple(data.class_names))
    options = {name: instantiate(config, name) for name in ("optimizer", "schedule", "ema", "evaluation")}
    trainer = replace(
        instantiate(config, "trainer"),
        max_steps=3,
        accelerator="cpu",
        devices=1,
        progress=False,
        tensorboard=False,
    )
    result = fit(witness, data, output=tmp_path / "run", trainer=trainer, **options)
    assert result.last["step"] == 3
    check_training(witness, config)
    check_evaluation(witness, config)
    with (tmp_path / "run" / "metrics.csv").open(encoding="utf-8") as file:
        rate = float(list(csv.DictReader(file))[-1]["learning_rate"])
    # After the third step of three.
    peak = config.optimizer.base_lr * 2 / config.optimizer.reference_batch_size  # two pictures per step
    assert rate == pytest.approx(peak * rate_factor(options["schedule"], 3, 3, config.schedule.warmup_steps))


@pytest.mark.parametrize("names", distinct().values(), ids=lambda names: names[0])
def test_the_rate_warms_up_and_falls_twice_over_the_published_length(names: list[str]):
    config = parsed(names[0])
    steps = config.trainer.max_steps
    if steps is None or steps < 0:
        steps = config.trainer.max_epochs * EPOCH // config.data.batch_size
    options = instantiate(config, "schedule")
    warmup = options.warmup_steps
    places = [0, warmup - 1, warmup, steps * 2 // 3 - 10, steps * 2 // 3 + 10, steps - 1]
    factors = [rate_factor(options, step, steps, warmup) for step in places]
    held = options.start_fraction if options.warmup == "constant" else 1.0
    assert factors == pytest.approx([options.start_fraction, held, 1, 1, 0.1, 0.01])


def check_training(witness: Witness, config: Any) -> None:
    resize = config.data.resize
    low, high = resize.train_short_side or (resize.short_side, resize.short_side)
    assert witness.class_names == tuple(NAMES.values())
    assert len(witness.trained) == 3
    for batch in witness.trained:
        assert all(side % 32 == 0 for side in batch.size)
        assert all(
            low <= min(picture) <= high and max(picture) <= resize.long_side for picture in batch.pictures
        )
        # A batch holds wide pictures only, or tall ones; crowds and pictures without objects are left out.
        assert len({width > height for height, width in batch.pictures}) == 1
        assert batch.targets is not None
        assert not batch.targets.ignore.any()
        assert (batch.targets.per_image() > 0).all()
        assert batch.filled <= {tuple(config.data.fill)}
    boxes = torch.cat([batch.targets.boxes for batch in witness.trained if batch.targets is not None])
    assert ((boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt() > 200).all()  # they grew with their pictures


def check_evaluation(witness: Witness, config: Any) -> None:
    sizes = [size for _, given in witness.evaluated for size in given]
    assert len(sizes) == len(VAL)
    for batch, given in witness.evaluated:
        assert [list(picture) for picture in batch.pictures] == given
        assert all(min(size) == config.data.resize.short_side for size in given)
        assert batch.filled == {tuple(config.data.fill)}  # 800 x 1066 beside 1066 x 800, and whole cells
