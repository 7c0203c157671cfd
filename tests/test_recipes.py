"""Every recipe parses, builds its detector, and says where it comes from."""

import re
from pathlib import Path

import pytest
import torch

from boxmatch.commands.parser import instantiate, parse
from boxmatch.commands.training import train_parser
from boxmatch.strict_yaml import load_yaml

RECIPES = sorted((Path(__file__).resolve().parents[1] / "recipes").glob("*.yaml"))
HEADER = ("source", "data", "expected", "hardware", "command")
# M parameters of the published tables (2 classes) for the overrides that the headers name.
OWN = ("own_voc", "own_coco", "own_yolo")


def header(recipe: Path) -> str:
    """The comment at the top of a recipe."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    return "\n".join(line[1:].strip() for line in lines if line.startswith("#"))


def build(recipe: Path, *overrides: str, classes: int = 2) -> torch.nn.Module:
    """The detector of a recipe, without memory for its weights."""
    arguments = [
        "--config",
        str(recipe),
        "--data.root",
        "nowhere",
        "--detector.pretrained",
        "false",
        *overrides,
    ]
    config = parse(train_parser("train"), arguments)
    with torch.device("meta"):
        return instantiate(config, "detector", class_names=[f"class {n}" for n in range(classes)])


def rows() -> list[tuple[str, float, str]]:
    """Recipe, parameters and overrides of every published row in the headers."""
    found = []
    for recipe in RECIPES:
        for line in header(recipe).splitlines():
            match = re.search(r"([\d.]+) M +[\d.]+ / [\d.]+ +(\(this file\)|--.*)$", line)
            if match:
                found.append((recipe.stem, float(match[1]), "" if match[2].startswith("(") else match[2]))
    return found


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_parses_builds_and_has_a_header(recipe: Path):
    assert build(recipe).num_parameters > 100_000
    config = parse(train_parser("train"), ["--config", str(recipe), "--data.root", "nowhere"])
    for section in ("data", "optimizer", "schedule", "ema", "trainer", "evaluation"):
        instantiate(config, section)
    text = header(recipe)
    for field in HEADER:
        assert re.search(rf"^{field} ", text, re.MULTILINE), f"no line '{field}' in the header"
    assert f"--config recipes/{recipe.name}" in text


def test_every_row_of_the_published_tables_has_its_recipe():
    published = (
        3 + 1 + 1 + 1 + 3 + 3 + 4 + 2
    )  # rows of the tables: methods, backbones, widths, not pretrained
    assert len(rows()) == published


@pytest.mark.parametrize(("name", "millions", "overrides"), rows())
def test_a_row_has_the_published_number_of_parameters(name: str, millions: float, overrides: str):
    recipe = next(path for path in RECIPES if path.stem == name)
    assert build(recipe, *overrides.split()).num_parameters / 1e6 == pytest.approx(millions, abs=0.0051)


@pytest.mark.parametrize("name", OWN)
def test_recipes_for_own_pictures_need_nothing_but_the_root(name: str):
    recipe = next(path for path in RECIPES if path.stem == name)
    content = load_yaml(recipe.read_text(encoding="utf-8"))
    assert "root" not in content["data"]
    assert not {"class_names", "train", "val"} & set(content["data"])
    config = parse(train_parser("train"), ["--config", str(recipe), "--data.root", "x"])
    assert config.data.format == name.removeprefix("own_")


def test_recipes_for_own_pictures_differ_in_their_layout_only():
    contents = [load_yaml(path.read_text(encoding="utf-8")) for path in RECIPES if path.stem in OWN]
    for content in contents:
        content["data"].pop("format")
    assert contents[0] == contents[1] == contents[2]
