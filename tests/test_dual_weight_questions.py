"""The page of questions about Dual Weighting names tests and options that exist."""

import re
from pathlib import Path

from boxmatch.assign import DualWeight
from boxmatch.dense_postprocess import DensePostProcess
from boxmatch.losses import DualWeightLoss

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/methods/dual_weight_questions.md").read_text(encoding="utf-8")


def test_every_test_it_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) > 30
    missing = [(file, name) for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]
    assert missing == []


def test_every_option_it_gives_a_value_is_one():
    known = " ".join(repr(part()) for part in (DualWeight, DualWeightLoss, DensePostProcess))
    options = re.findall(r'`(\w+)="?[\w.]+"?`', PAGE)
    assert len(options) > 8
    assert [name for name in options if f"{name}=" not in known] == []
