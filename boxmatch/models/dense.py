"""Dense detectors: ResNet, feature pyramid, and one head for all levels (RetinaNet, FCOS, ATSS, PAA, DW)."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from boxmatch.assign import Assigner
from boxmatch.coders import BoxCoder
from boxmatch.delta_coder import DeltaCoder
from boxmatch.dense_postprocess import DensePostProcess
from boxmatch.distance_coder import DistanceCoder
from boxmatch.models.arguments import network_arguments, shared_arguments
from boxmatch.models.backbone_choice import BackboneName, dense_backbone
from boxmatch.models.box_refinement import Border
from boxmatch.models.dense_backbone import Norm
from boxmatch.models.dense_head import BoxNumbers, DenseHead, LevelMaps, prior_rows
from boxmatch.models.detector import Detector
from boxmatch.models.fpn import FPN, TopSource
from boxmatch.models.timm_backbone import PREFIX
from boxmatch.priors import AnchorGrid

STRIDES = (8, 16, 32, 64, 128)

# Blue, green, red in 0 .. 255, as the Caffe2 / MSRA weights expect; unit deviation.
_CAFFE_MEAN_BGR = (102.9801, 115.9465, 122.7717)

InputNorm = Literal["torchvision", "caffe"]


def caffe_input(images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """uint8 or 0..1 RGB as the Caffe2 / MSRA weights want it: BGR in 0 .. 255 less a mean."""
    values = images.float() if images.dtype == torch.uint8 else images * 255
    return values.flip(1) - values.new_tensor(_CAFFE_MEAN_BGR)[:, None, None]


def anchor_grid(
    size: float,
    octave_scales: int,
    ratios: Sequence[float],
    center: float,
    shift: float,
    *,
    strides: Sequence[int] = STRIDES,
) -> AnchorGrid:
    """The priors of strides 8 to 128, or of others: every size of an octave in every shape.

    Args:
        size: side in strides of the smallest square.
        octave_scales: sizes per octave.
        ratios: height / width of each shape, at equal area.
        center: where in its cell a prior's centre lies, in strides.
        shift: pixels added to every centre.
        strides: pixels per cell of each level.

    Raises:
        ValueError: a number is not positive.
    """
    if not (size > 0 and octave_scales >= 1 and ratios and min(ratios) > 0):
        raise ValueError(
            "expected an anchor size above 0, one octave scale or more, and ratios above 0, got "
            f"{size}, {octave_scales} and {list(ratios)}"
        )
    sides = [size * 2 ** (octave / octave_scales) for octave in range(octave_scales)]
    shapes = [(side / ratio**0.5, side * ratio**0.5) for ratio in ratios for side in sides]
    anchors = [[(width * stride, height * stride) for width, height in shapes] for stride in strides]
    return AnchorGrid(anchors, strides, center=center, shift=shift)


class DenseDetector(Detector):
    """A dense detector; the presets in `models.dense_presets` give the published ones.

    Args:
        class_names: one name per class, in label order.
        backbone: a ResNet or ResNeXt by name, or "timm/" and the name of a network of timm.
        pretrained: its ImageNet weights, see `DenseBackbone` and `TimmBackbone`.
        stride_in_1x1: see `DenseBackbone`; not with timm.
        norm: see `DenseBackbone`.
        norm_eps: see `DenseBackbone`; not with timm.
        frozen_stages: see `DenseBackbone` and `TimmBackbone`.
        deformable_stages: see `DenseBackbone`; not with timm.
        channels: width of pyramid and head.
        top: whether P6 is made from P5 or from C5.
        tower_length: convolutions per tower.
        group_norm: whether the towers have group norm; RetinaNet's have not.
        quality: whether the head has a quality branch.
        box_numbers: "deltas" relative to the prior, or "distances" to the four sides in pixels.
        deformable_tower: make the last convolution of both towers deformable.
        refine: box refinement, "zeros" or "clamp" at the border; None leaves it out.
        prior_probability: class probability of an untrained network.
        anchor_size: side in strides of the smallest square prior; 8 in ATSS, PAA and DW, 4 in RetinaNet.
        anchor_scales: sizes per octave; 3 in RetinaNet.
        anchor_ratios: height / width of each shape.
        anchor_center: where in its cell a prior's centre lies, in strides.
        anchor_shift: pixels added to every centre; 0.5 in the ATSS and PAA of maskrcnn-benchmark.
        input_norm: "torchvision" (RGB, ImageNet mean and deviation) or "caffe" (BGR in 0 .. 255 less a mean).
        coder: what the box numbers mean; None takes the one that belongs to `box_numbers`.
        assigner: which prior learns which box.
        loss: loss terms.
        postprocess: predictions to detections; None takes DensePostProcess, with the quality branch if there
            is one.

    Raises:
        ValueError: an option does not fit the others; the message says which.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        backbone: BackboneName = "resnet50",
        pretrained: bool | str = False,
        stride_in_1x1: bool = False,
        norm: Norm = "frozen",
        norm_eps: float = 1e-5,
        frozen_stages: int = 2,
        deformable_stages: Sequence[int] = (),
        channels: int = 256,
        top: TopSource = "p5",
        tower_length: int = 4,
        group_norm: bool = True,
        quality: bool = True,
        box_numbers: BoxNumbers = "deltas",
        deformable_tower: bool = False,
        refine: Border | None = None,
        prior_probability: float = 0.01,
        anchor_size: float = 8.0,
        anchor_scales: int = 1,
        anchor_ratios: Sequence[float] = (1.0,),
        anchor_center: float = 0.5,
        anchor_shift: float = 0.0,
        input_norm: InputNorm = "torchvision",
        coder: BoxCoder | None = None,
        assigner: Assigner,
        loss: nn.Module,
        postprocess: DensePostProcess | None = None,
    ) -> None:
        grid = anchor_grid(anchor_size, anchor_scales, anchor_ratios, anchor_center, anchor_shift)
        architecture = network_arguments(DenseDetector, locals())
        super().__init__(
            class_names,
            architecture=architecture,
            grid=grid,
            coder=_coder(box_numbers) if coder is None else coder,
            assigner=assigner,
            loss=loss,
            postprocess=_postprocess(quality) if postprocess is None else postprocess,
        )
        self.input_norm = _checked(input_norm, backbone)
        options = shared_arguments(dense_backbone, architecture)
        self.backbone = dense_backbone(backbone, pretrained=pretrained, **options)
        self.fpn = FPN(self.backbone.channels, channels, top=top)
        options = shared_arguments(DenseHead, architecture)
        options |= {"anchors": len(grid.anchors[0]), "deformable": deformable_tower}
        self.head = DenseHead(channels, self.num_classes, **options)

    def normalise(self, images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """uint8 or 0..1 RGB as the backbone's weights want it."""
        return super().normalise(images) if self.input_norm == "torchvision" else caffe_input(images)

    def network(self, normalised: Float[Tensor, "B 3 H W"]) -> list[LevelMaps]:
        """Logits, box numbers and quality of P3 to P7."""
        return self.head(self.fpn.levels(self.backbone(normalised)), STRIDES)

    def flatten(
        self, maps: Sequence[LevelMaps]
    ) -> tuple[Float[Tensor, "B P C"], Float[Tensor, "B P 4"], Float[Tensor, "B P"] | None]:
        """Class logits, box numbers and quality in the order level → row → column → anchor."""
        return prior_rows(maps, self.num_classes)


def _coder(box_numbers: BoxNumbers) -> BoxCoder:
    """What the box numbers mean if nobody says otherwise."""
    return DistanceCoder() if box_numbers == "distances" else DeltaCoder()


def _postprocess(quality: bool) -> DensePostProcess:
    """With the quality branch in the score, if there is one."""
    return DensePostProcess(fusion="sqrt" if quality else "class")


def _checked(input_norm: InputNorm, backbone: str) -> InputNorm:
    if input_norm not in get_args(InputNorm):
        raise ValueError(f"expected input_norm in {get_args(InputNorm)}, got {input_norm!r}")
    if input_norm == "caffe" and backbone.startswith(PREFIX):
        raise ValueError(
            f"input_norm='caffe' belongs to the Caffe2 weights of ResNets; {backbone} knows the colours of "
            "its own weights, leave input_norm at 'torchvision'"
        )
    return input_norm
