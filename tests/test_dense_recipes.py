"""The recipes of the dense detectors: the published networks and settings, one file per published row."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything

from boxmatch.checkpoints.saved import describe
from boxmatch.commands.parser import SECTIONS, instantiate, parse
from boxmatch.commands.training import train_parser
from boxmatch.models import dense_presets
from boxmatch.models.dense import DenseDetector
from boxmatch.strict_yaml import load_yaml
from boxmatch.train import TrainerOptions, fit
from boxmatch.training.record import plain

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
FAMILIES = ("atss", "dynamic_atss", "paa", "dual_weight")
PUBLISHED = sorted(path for family in FAMILIES for path in (FOLDER / family).glob("*.yaml"))
BCCD = [FOLDER / f"bccd_{name}.yaml" for name in ("retinanet", *FAMILIES)]
BACKBONES = {"r50": "resnet50", "r101": "resnet101", "x101_32x8d": "resnext101_32x8d"}
BACKBONES |= {"x101_64x4d": "resnext101_64x4d", "x152_32x8d": "resnext152_32x8d"}
STEPS = {"1x": 90_000, "1.5x": 135_000, "2x": 180_000}


def name_of(path: Path) -> str:
    return str(path.relative_to(FOLDER).with_suffix(""))


@cache
def parsed(recipe: Path, *more: str) -> Any:
    arguments = ["--config", str(recipe), "--data.root", "nowhere", "--detector.pretrained", "false", *more]
    return parse(train_parser("train"), arguments)


def built(recipe: Path, classes: int = 80) -> DenseDetector:
    """The detector of a recipe, without memory for its weights."""
    with torch.device("meta"):
        return instantiate(parsed(recipe), "detector", class_names=[f"class {n}" for n in range(classes)])


def preset(recipe: Path) -> DenseDetector:
    """The network that the recipe's name stands for."""
    match = re.fullmatch(r"(dcn_)?(\w+?)(_no_refine)?_([\d.]+x)", recipe.stem)
    assert match, recipe
    options: dict[str, Any] = {"backbone": BACKBONES[match[2]], "deformable": bool(match[1])}
    if match[3]:
        options["refine"] = None
    with torch.device("meta"):
        made: DenseDetector = getattr(dense_presets, recipe.parent.name)(
            [f"class {n}" for n in range(80)], **options
        )
    return made


def test_every_published_row_has_its_recipe():
    counts = {family: sum(path.parent.name == family for path in PUBLISHED) for family in FAMILIES}
    assert counts == {"atss": 10, "dynamic_atss": 10, "paa": 8, "dual_weight": 5}


@cache
def defaults() -> Any:
    return train_parser("train").get_defaults()


@pytest.mark.parametrize("recipe", PUBLISHED, ids=name_of)
def test_a_recipe_builds_the_published_network(recipe: Path):
    assert plain(describe(built(recipe))) == plain(describe(preset(recipe)))


@pytest.mark.parametrize("recipe", [*PUBLISHED, *BCCD], ids=name_of)
def test_a_recipe_says_where_it_comes_from_and_how_it_is_run(recipe: Path):
    text = recipe.read_text(encoding="utf-8")
    for field in ("source", "data", "expected", "hardware", "command"):
        assert re.search(rf"^# {field} ", text, re.MULTILINE), f"no line {field!r} in the header"
    assert f"--config recipes/{name_of(recipe)}.yaml" in text


@pytest.mark.parametrize("recipe", PUBLISHED, ids=name_of)
def test_the_settings_of_a_recipe_are_the_published_ones(recipe: Path):
    config = parsed(recipe)
    data, optimizer, schedule, _, trainer, _ = (instantiate(config, section) for section in SECTIONS)
    times = recipe.stem.rpartition("_")[2]
    dual = recipe.parent.name == "dual_weight"
    pictures = 8 if "x152" in recipe.stem else 16
    assert (optimizer.base_lr, optimizer.reference_batch_size) == (0.01 * pictures / 16, pictures)
    assert data.batch_size == pictures and data.crowd == "drop" and not data.keep_empty
    assert (data.resize.short_side, data.resize.long_side) == (800, 1333)
    wide = (480, 960) if dual else (640, 800)
    assert data.resize.train_short_side == (wide if times == "2x" else None)
    if dual:
        assert (trainer.max_epochs, optimizer.no_decay) == (12 * int(times[0]), ("norm",))
        assert (schedule.warmup, schedule.warmup_steps, schedule.start_fraction) == ("linear", 1000, 0.001)
        assert schedule.milestones == pytest.approx((8 / 12, 11 / 12), abs=1e-6)
    else:
        steps = STEPS[times] * 16 // pictures
        assert (trainer.max_epochs, trainer.max_steps) == (-1, steps)
        assert schedule.milestones == pytest.approx((steps * 2 / 3, steps * 8 / 9))
        assert (optimizer.no_decay, optimizer.bias_rate) == (("bias",), 2)
        assert (schedule.warmup, schedule.warmup_steps) == ("constant", 500)
    assert "# weights" in recipe.read_text(encoding="utf-8")


@pytest.mark.parametrize("recipe", [*PUBLISHED, *BCCD], ids=name_of)
def test_every_line_of_a_recipe_changes_something(recipe: Path):
    content = load_yaml(recipe.read_text(encoding="utf-8"))
    config, usual = parsed(recipe), defaults()
    for section in set(content) - {"detector"}:
        for option in content[section]:
            same = plain(config[section][option]) == plain(usual[section][option])
            assert not same or option in ("batch_size", "base_lr", "max_epochs"), (
                f"{section}.{option} says what holds anyway"
            )


def test_the_recipes_for_blood_cells_differ_in_the_method_only():
    contents = [load_yaml(path.read_text(encoding="utf-8")) for path in BCCD]
    assert all({**one, "detector": None} == {**contents[0], "detector": None} for one in contents)
    networks = [built(path, classes=3) for path in BCCD]
    for part in ("backbone", "fpn"):
        shapes = [{n: p.shape for n, p in getattr(one, part).named_parameters()} for one in networks]
        assert all(one == shapes[0] for one in shapes)
    assert len({type(one.assigner) for one in networks}) == len(BCCD)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_variant_of_a_published_recipe_trains(family: str, data_dir: Path, tmp_path: Path):
    tiny = ["--detector.backbone", "resnet18", "--detector.channels", "32", "--detector.tower_length", "1"]
    if family != "dual_weight":
        tiny += ["--detector.stride_in_1x1", "false", "--detector.norm", "batch"]
        tiny += ["--detector.norm_eps", "0.00001"]
    tiny += ["--data.resize.short_side", "96", "--data.resize.long_side", "160", "--data.batch_size", "4"]
    tiny += ["--data.root", str(data_dir / "coco_mini"), "--data.workers", "0"]
    recipe = FOLDER / family / "r50_1x.yaml"
    config = parsed(recipe, *tiny)
    seed_everything(0)
    data = instantiate(config, "data")
    detector = instantiate(config, "detector", class_names=list(data.class_names))
    options = {section: instantiate(config, section) for section in ("optimizer", "schedule", "ema")}
    trainer = TrainerOptions(
        max_epochs=-1, max_steps=9, accelerator="cpu", devices=1, progress=False, tensorboard=False
    )
    result = fit(detector, data, output=tmp_path / "run", trainer=trainer, **options)
    assert result.last["step"] == 9 and result.last["map"] is not None
