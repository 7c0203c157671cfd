"""The recipe for a head of one's own: it is short, the page shows what runs, and it learns."""

import inspect
import re
import runpy
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from boxmatch import ATSS, Assigner, FCOSRegion, Hungarian, MaxIoU, SimOTA, TaskAligned

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names of the example."""
    return runpy.run_path(str(ROOT / "examples/own_head.py"))


def test_it_learns_four_pictures_by_heart(example, capsys):
    history = example["main"](steps=60)
    assert max(history[-5:]) < 0.4 * history[0]
    assert capsys.readouterr().out.startswith("step   0: loss ")


@pytest.mark.parametrize("assigner", [ATSS(), FCOSRegion(), MaxIoU(0.3, 0.2), SimOTA(), Hungarian()])
def test_any_method_that_gives_a_prior_to_one_box_fits(example, assigner: Assigner):
    history = example["main"](assigner, steps=25)
    assert min(history[-5:]) < 0.85 * history[0]


def test_what_is_ignored_takes_no_part(example):
    torch.manual_seed(0)
    head = example["OwnHead"](2)
    images, targets = example["pictures"](2)
    crowd = type(targets).from_lists([[[0.0, 0.0, 64.0, 64.0]]] * 2, [[0]] * 2, [[True]] * 2)
    assert sum(example["losses"](head, TaskAligned(), images, crowd).values()) == 0
    assert sum(example["losses"](head, TaskAligned(), images, targets).values()) > 0


def test_the_page_shows_the_lines_that_run_and_they_are_fifteen_at_most(example):
    page = (ROOT / "docs/own_head.md").read_text()
    (shown,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    source = inspect.getsource(example["losses"])
    body = source[source.index('"""', source.index('"""') + 3) + 4 :]
    assert shown == textwrap.dedent(body)
    assert len([line for line in shown.splitlines() if line.strip()]) <= 15
