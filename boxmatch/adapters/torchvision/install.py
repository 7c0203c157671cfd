"""The one line: put an assigner into a model, and take it out again."""

from typing import Any, TypeVar

from torch import nn
from torch.utils.hooks import RemovableHandle
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from ...assign import Assigner
from .anchors import AnchorRecorder
from .dense import DenseLoss
from .guard import TargetGuard
from .matching import Matching, Soft
from .two_stage import AnchorMatching, ProposalMatching

Model = TypeVar("Model", bound=nn.Module)

ADAPTATION = "_boxmatch_adaptation"
"""Attribute under which a model keeps what was changed in it."""


class Adaptation:
    """What was changed in a model: functions that shadow its methods, and hooks."""

    def __init__(self) -> None:
        self.shadows: list[tuple[nn.Module, str]] = []
        self.handles: list[RemovableHandle] = []

    def shadow(self, module: nn.Module, method: str, function: Any) -> None:
        """Let a function answer in the place of a method of this one object."""
        setattr(module, method, function)
        self.shadows.append((module, method))

    def record(self, generator: nn.Module) -> AnchorRecorder:
        """A recorder of the anchors that a generator makes."""
        recorder = AnchorRecorder()
        self.handles.append(generator.register_forward_hook(recorder))
        return recorder

    def undo(self) -> None:
        """Give the model its own methods back."""
        for module, method in self.shadows:
            delattr(module, method)
        for handle in self.handles:
            handle.remove()


def use_assigner(
    model: Model,
    assigner: Assigner | None = None,
    *,
    rpn: Assigner | None = None,
    roi_heads: Assigner | None = None,
    soft: Soft = "refuse",
) -> Model:
    """Let an assigner decide in training which anchors of a torchvision model learn which box.

    Everything else stays the model's own: its type, losses, sampling, inference and `state_dict`. Targets are
    checked before each training step. Boxes with `iscrowd` in their target are ignore regions. A second call
    replaces the first; `restore` undoes it; a copy of the model has a copy of the assigner.

    Args:
        model: a `RetinaNet`, an `FCOS`, or a `FasterRCNN` with its kin (Mask, Keypoint R-CNN).
        assigner: for RetinaNet and FCOS.
        rpn: for the region proposals of a Faster R-CNN; None keeps its own matching.
        roi_heads: for its RoI heads, whose priors are proposals on no grid; None keeps their own.
        soft: an assigner may give pairs a weight and a class target between 0 and 1, which these losses
            cannot express: "refuse" raises at the first such step, "as_hard" uses the pairs alone.

    Returns:
        The same model.

    Raises:
        ValueError: a model of another kind, an assigner in a place the model does not have, or one that the
            place cannot serve; in training, targets that no model can learn, or a soft assignment.
    """
    adaptation = Adaptation()
    if isinstance(model, RetinaNet | FCOS):
        if assigner is None or rpn is not None or roi_heads is not None:
            raise ValueError(
                f"{type(model).__name__} matches its anchors in one place: expected assigner alone, got "
                f"{assigner=}, {rpn=}, {roi_heads=}"
            )
        matching = Matching(assigner, f"the loss of {type(model).__name__}", soft)
        restore(model)
        _adapt_dense(adaptation, model, matching)
    elif isinstance(model, GeneralizedRCNN):
        if assigner is not None or (rpn is None and roi_heads is None):
            raise ValueError(
                f"{type(model).__name__} matches in two places: expected rpn=..., roi_heads=... or both, got "
                f"{assigner=}, {rpn=}, {roi_heads=}"
            )
        matchings = _two_stage_matchings(rpn, roi_heads, soft)
        restore(model)
        _adapt_two_stage(adaptation, model, *matchings)
    else:
        raise ValueError(
            f"expected a RetinaNet, an FCOS or a FasterRCNN of torchvision, got {type(model).__name__}; for "
            "a model of your own see docs/own_head.md"
        )
    setattr(model, ADAPTATION, adaptation)
    return model


def restore(model: Model) -> Model:
    """Undo `use_assigner`: the model matches as torchvision made it; nothing happens if it already does."""
    adaptation = getattr(model, ADAPTATION, None)
    if adaptation is not None:
        adaptation.undo()
        delattr(model, ADAPTATION)
    return model


def _adapt_dense(adaptation: Adaptation, model: Any, matching: Matching) -> None:
    classes = getattr(model.head.classification_head, "num_classes", None)
    guard = TargetGuard(first_label=0, num_classes=classes)
    adaptation.handles.append(model.register_forward_pre_hook(guard, with_kwargs=True))
    recorder = adaptation.record(model.anchor_generator)
    adaptation.shadow(model, "compute_loss", DenseLoss(model, matching, recorder))


def _two_stage_matchings(
    rpn: Assigner | None, roi_heads: Assigner | None, soft: Soft
) -> tuple[Matching | None, Matching | None]:
    for place, assigner in (("rpn", rpn), ("roi_heads", roi_heads)):
        if assigner is not None and assigner.uses_predictions:
            raise ValueError(
                f"{place}: {type(assigner).__name__} reads predictions, expected a method that does not: a "
                "Faster R-CNN matches before it predicts"
            )
    return (
        None if rpn is None else Matching(rpn, "the loss of the RPN", soft),
        None if roi_heads is None else Matching(roi_heads, "the loss of the RoI heads", soft),
    )


def _adapt_two_stage(
    adaptation: Adaptation, model: Any, rpn: Matching | None, roi_heads: Matching | None
) -> None:
    score = getattr(model.roi_heads.box_predictor, "cls_score", None)
    guard = TargetGuard(first_label=1, num_classes=getattr(score, "out_features", None))
    adaptation.handles.append(model.register_forward_pre_hook(guard, with_kwargs=True))
    if rpn is not None:
        recorder = adaptation.record(model.rpn.anchor_generator)
        adaptation.shadow(model.rpn, "assign_targets_to_anchors", AnchorMatching(rpn, recorder))
    if roi_heads is not None:
        proposals = ProposalMatching(roi_heads)
        adaptation.handles.append(model.roi_heads.register_forward_pre_hook(proposals.remember))
        adaptation.shadow(model.roi_heads, "assign_targets_to_proposals", proposals)
