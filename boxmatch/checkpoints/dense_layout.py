"""The weights of other projects' dense detectors under our names: a table of rules, nothing skipped unsaid.

Read are the layouts of maskrcnn-benchmark (ATSS, PAA, Dynamic ATSS) and of MMDetection 2 and 3 (ATSS, PAA,
DW, FCOS, RetinaNet).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_RESNET = r"(conv1|bn1|layer[1-4]\.\d+\..*)"

# Pattern of a name → ours; the first that matches the whole name decides.
_BENCHMARK_RULES: Sequence[tuple[str, str]] = (
    (r"backbone\.body\.stem\.(conv1|bn1)\.(\w+)", r"backbone.\1.\2"),
    (r"backbone\.body\.(layer\d\.\d+\.conv2)\.conv\.(\w+)", r"backbone.\1.\2"),
    (r"backbone\.body\.(layer\d\.\d+\..+)", r"backbone.\1"),
    (r"backbone\.fpn\.fpn_inner([234])\.(\w+)", r"fpn.inner_blocks.<\1-2>.0.\2"),
    (r"backbone\.fpn\.fpn_layer([234])\.(\w+)", r"fpn.layer_blocks.<\1-2>.0.\2"),
    (r"backbone\.fpn\.top_blocks\.(p[67])\.(\w+)", r"fpn.extra_blocks.\1.\2"),
    (r"rpn\.head\.cls_tower\.(\d+)\.(?:conv\.)?(.+)", r"head.class_tower.\1.\2"),
    (r"rpn\.head\.bbox_tower\.(\d+)\.(?:conv\.)?(.+)", r"head.box_tower.\1.\2"),
    (r"rpn\.head\.cls_logits\.(\w+)", r"head.class_logits.\1"),
    (r"rpn\.head\.bbox_pred\.(\w+)", r"head.boxes.\1"),
    (r"rpn\.head\.(?:centerness|iou_pred)\.(\w+)", r"head.quality.\1"),
    (r"rpn\.head\.scales\.(\d)\.scale", r"head.scales.\1"),
)
_MMDETECTION_RULES: Sequence[tuple[str, str]] = (
    (r"backbone\.(layer\d\.\d+\.conv2)\.conv_offset\.(\w+)", r"backbone.\1.offset.\2"),
    (rf"backbone\.{_RESNET}", r"backbone.\1"),
    (r"backbone\.(conv1|bn1)\.(\w+)", r"backbone.\1.\2"),
    (r"neck\.lateral_convs\.([012])\.conv\.(\w+)", r"fpn.inner_blocks.\1.0.\2"),
    (r"neck\.fpn_convs\.([012])\.conv\.(\w+)", r"fpn.layer_blocks.\1.0.\2"),
    (r"neck\.fpn_convs\.([34])\.conv\.(\w+)", r"fpn.extra_blocks.p<\1+3>.\2"),
    (r"bbox_head\.(cls|reg)_convs\.(\d+)\.conv\.conv_offset\.(\w+)", r"head.{\1}_tower.<\2*3>.offset.\3"),
    (r"bbox_head\.(cls|reg)_convs\.(\d+)\.conv\.(\w+)", r"head.{\1}_tower.<\2*3>.\3"),
    (r"bbox_head\.(cls|reg)_convs\.(\d+)\.gn\.(\w+)", r"head.{\1}_tower.<\2*3+1>.\3"),
    (r"bbox_head\.(?:conv_cls|atss_cls|retina_cls|fcos_cls)\.(\w+)", r"head.class_logits.\1"),
    (r"bbox_head\.(?:conv_reg|atss_reg|retina_reg|fcos_reg)\.(\w+)", r"head.boxes.\1"),
    (
        r"bbox_head\.(?:conv_centerness|atss_centerness|fcos_centerness)\.(\w+)",
        r"head.quality.\1",
    ),
    (r"bbox_head\.reg_offset\.(\w+)", r"head.offsets.\1"),
    (r"bbox_head\.scales\.(\d)\.scale", r"head.scales.\1"),
)
_TOWERS = {"cls": "class", "reg": "box"}

# Constants that our classes compute: name → what it must hold, where that can be checked.
_CONSTANTS = {
    r"rpn\.anchor_generator\.cell_anchors\.\d": None,
    r"bbox_head\.center_prior\.mean": 0.0,
    r"bbox_head\.center_prior\.sigma": 1.11,
}


def rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of `DenseDetector`.

    Raises:
        ValueError: a tensor has no place in the network, two have the same, or a constant is another one than
            our classes compute.
    """
    rules = _BENCHMARK_RULES if is_benchmark(weights) else _MMDETECTION_RULES
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in weights.items():
        if _is_constant(name, tensor):
            continue
        ours = _our_name(name, rules)
        if ours is None:
            unknown.append(name)
        elif ours in renamed:
            raise ValueError(f"expected one tensor for {ours}, got {name} as a second one")
        else:
            renamed[ours] = tensor
    if unknown:
        raise ValueError(
            f"{len(unknown)} tensors have no place in a dense detector: {', '.join(unknown[:5])}"
            f"{', …' if len(unknown) > 5 else ''}; leave them out with `drop` if they are not needed"
        )
    return _join_scales(renamed)


def is_benchmark(weights: Mapping[str, Any]) -> bool:
    """Whether the names are those of maskrcnn-benchmark rather than MMDetection.

    Raises:
        ValueError: they are neither.
    """
    if any(name.startswith("rpn.head.") for name in weights):
        return True
    if any(name.startswith("bbox_head.") for name in weights):
        return False
    raise ValueError(
        "expected the tensors of a dense detector (rpn.head.… of maskrcnn-benchmark or bbox_head.… of "
        f"MMDetection), got {', '.join(list(weights)[:3])}, …"
    )


def _our_name(name: str, rules: Sequence[tuple[str, str]]) -> str | None:
    for pattern, ours in rules:
        match = re.fullmatch(pattern, name)
        if match:
            text = match.expand(ours)
            text = re.sub(r"\{(cls|reg)\}", lambda tower: _TOWERS[tower[1]], text)
            return re.sub(r"<([^>]+)>", lambda sum_: str(_small_sum(sum_[1])), text)
    return None


def _small_sum(text: str) -> int:
    """The value of n-k, n+k or n*k(+j)."""
    number, *steps = re.findall(r"\d+|[-+*]\d+", text)
    value = int(number)
    for step in steps:
        operand = int(step[1:])
        value = value * operand if step[0] == "*" else value + (operand if step[0] == "+" else -operand)
    return value


def _is_constant(name: str, tensor: Tensor) -> bool:
    for pattern, value in _CONSTANTS.items():
        if re.fullmatch(pattern, name):
            if value is not None and not bool(torch.isclose(tensor.float(), torch.tensor(value)).all()):
                raise ValueError(
                    f"expected {name} to hold {value} everywhere, the constant of the published method, got "
                    f"values from {float(tensor.min()):g} to {float(tensor.max()):g}"
                )
            return True
    return False


def _join_scales(renamed: dict[str, Tensor]) -> dict[str, Tensor]:
    """The scales of the levels, one number each in other projects, as one vector."""
    names = sorted(name for name in renamed if re.fullmatch(r"head\.scales\.\d", name))
    if names:
        renamed["head.scales"] = torch.cat([renamed.pop(name).reshape(1) for name in names])
    return renamed


def architecture(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `DenseDetector` that can be read off the renamed tensors.

    Raises:
        ValueError: the blocks are those of no known backbone.
    """
    blocks = tuple(
        sum(bool(re.fullmatch(rf"backbone\.layer{stage}\.\d+\.conv1\.weight", name)) for name in weights)
        for stage in (1, 2, 3, 4)
    )
    bottleneck = "backbone.layer1.0.conv3.weight" in weights
    width = weights["backbone.layer1.0.conv2.weight"].shape
    # A grouped convolution sees 1/groups of its input channels.
    groups = width[0] // width[1]
    key = (blocks, bottleneck, groups, width[0])
    if key not in _BACKBONES:
        raise ValueError(
            f"expected the blocks of a ResNet or ResNeXt, got stages of {blocks} blocks with {groups} groups "
            f"and {width[0]} channels in the first"
        )
    deformable = [
        stage
        for stage in (2, 3, 4)
        if any(name.startswith(f"backbone.layer{stage}.0.conv2.offset") for name in weights)
    ]
    towers = [int(m[1]) for name in weights if (m := re.fullmatch(r"head\.box_tower\.(\d+)\.weight", name))]
    group_norm = "head.box_tower.1.weight" in weights
    p6 = weights["fpn.extra_blocks.p6.weight"].shape
    return {
        "backbone": _BACKBONES[key],
        "deformable_stages": deformable,
        "channels": weights["fpn.inner_blocks.0.0.weight"].shape[0],
        "top": "p5" if p6[0] == p6[1] else "c5",
        "tower_length": len({index // 3 for index in towers}),
        "group_norm": group_norm,
        "quality": "head.quality.weight" in weights,
        "deformable_tower": any(".offset." in name for name in weights if name.startswith("head.box_tower")),
        "refined": "head.offsets.weight" in weights,
    }


_BACKBONES: Mapping[tuple[tuple[int, ...], bool, int, int], str] = {
    ((2, 2, 2, 2), False, 1, 64): "resnet18",
    ((3, 4, 6, 3), False, 1, 64): "resnet34",
    ((3, 4, 6, 3), True, 1, 64): "resnet50",
    ((3, 4, 23, 3), True, 1, 64): "resnet101",
    ((3, 8, 36, 3), True, 1, 64): "resnet152",
    ((3, 4, 23, 3), True, 64, 256): "resnext101_64x4d",
    ((3, 4, 23, 3), True, 32, 256): "resnext101_32x8d",
    ((3, 8, 36, 3), True, 32, 256): "resnext152_32x8d",
}
"""Blocks per stage, bottlenecks, groups, width of the first 3 × 3 → name."""
