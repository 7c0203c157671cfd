"""Arguments of detectors that are handed on by name."""

import pytest
import torch
from torch import nn

from boxmatch.assign import NearbyGrid
from boxmatch.models import YOLO, DenseDetector
from boxmatch.models.arguments import keyword_names, network_arguments, shared_arguments
from boxmatch.models.backbone_choice import dense_backbone
from boxmatch.models.dense_head import DenseHead


def layer(size: int, *, depth: int = 1, sides: tuple[int, ...] = (), pretrained: bool = False) -> None:
    """A constructor that is never called."""


def test_plain_keyword_arguments_of_the_network_are_kept():
    values = {"self": None, "size": 3, "depth": 2, "sides": ((1, 2), (3, 4)), "pretrained": True, "local": 5}
    assert network_arguments(layer, values) == {"depth": 2, "sides": [[1, 2], [3, 4]]}
    assert network_arguments(layer, values, without=("depth",)) == {"sides": [[1, 2], [3, 4]]}


def test_a_part_gets_what_it_knows():
    assert shared_arguments(layer, {"size": 3, "depth": 2, "width": 4}) == {"depth": 2}


def test_every_argument_of_a_dense_detector_reaches_a_part():
    told = {"channels", "top", "deformable_tower", "backbone", "input_norm"}
    told |= {f"anchor_{name}" for name in ("size", "scales", "ratios", "center", "shift")}
    saved_apart = {"pretrained", "coder", "assigner", "loss", "postprocess"}
    by_name = keyword_names(dense_backbone) | keyword_names(DenseHead)
    assert keyword_names(DenseDetector) <= told | saved_apart | by_name


@pytest.mark.parametrize(
    ("option", "value"),
    [("norm_eps", 1e-3), ("frozen_stages", 0), ("tower_length", 2), ("quality", False), ("channels", 64)],
)
def test_options_of_a_dense_detector_are_those_of_its_parts(option, value):
    with torch.device("meta"):
        made = DenseDetector(
            ["a"], backbone="resnet18", assigner=NearbyGrid(), loss=nn.Identity(), **{option: value}
        )
    assert made.architecture[option] == value
    found = {
        "norm_eps": made.backbone.bn1.eps,
        "frozen_stages": made.backbone.frozen_stages,
        "tower_length": sum(isinstance(part, nn.Conv2d) for part in made.head.box_tower),
        "quality": made.head.quality is not None,
        "channels": made.fpn.inner_blocks[0][0].out_channels,
    }
    assert found[option] == value


def test_what_is_saved_of_a_yolo_is_what_its_weights_need():
    kept = {"backbone", "channel_sparsity", "anchors", "activation", "head_bias"}
    assert YOLO(["a"], channel_sparsity=0.25).architecture.keys() == kept
