"""The backbone of a dense detector, chosen by its name."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import cast, get_args

from boxmatch.models.dense_backbone import DenseBackbone, DenseBackboneName, Norm
from boxmatch.models.timm_backbone import PREFIX, TimmBackbone

BackboneName = DenseBackboneName | str
"""One of torchvision's ResNets and ResNeXts, or "timm/" and a name of timm's."""


def dense_backbone(
    name: BackboneName,
    *,
    pretrained: bool | str = False,
    stride_in_1x1: bool = False,
    norm: Norm = "frozen",
    norm_eps: float = 1e-5,
    frozen_stages: int = 2,
    deformable_stages: Sequence[int] = (),
) -> DenseBackbone | TimmBackbone:
    """A `TimmBackbone` for names that start with "timm/", else a `DenseBackbone`.

    Both have `channels` of their three maps, and `forward` gives the maps of strides 8, 16 and 32.

    Args:
        name: which network.
        pretrained: see either.
        stride_in_1x1: see `DenseBackbone`; not with timm.
        norm: see either.
        norm_eps: see `DenseBackbone`; networks of timm keep the one they were made with.
        frozen_stages: see either.
        deformable_stages: see `DenseBackbone`; not with timm.

    Raises:
        ModuleNotFoundError: `timm` is needed and not installed.
        ValueError: an option is unknown or does not fit the network, or the weights do not.
        FileNotFoundError: there is no such local file.
        ConnectionError: a download fails.
    """
    if not name.startswith(PREFIX):
        known = get_args(DenseBackboneName)
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise ValueError(
                f"expected a backbone among {', '.join(known)}, or {PREFIX} and a name of timm's, got "
                + repr(name)
                + "".join(f"; did you mean {word}?" for word in near)
            )
        return DenseBackbone(
            cast(DenseBackboneName, name),
            pretrained=pretrained,
            stride_in_1x1=stride_in_1x1,
            norm=norm,
            norm_eps=norm_eps,
            frozen_stages=frozen_stages,
            deformable_stages=deformable_stages,
        )
    wrong = {
        "stride_in_1x1=false": stride_in_1x1,
        "norm_eps=1e-5": norm_eps != 1e-5,
        "deformable_stages=[]": bool(deformable_stages),
    }
    if any(wrong.values()):
        raise ValueError(
            f"{name} does not know options of ResNets; leave {', '.join(key for key in wrong if wrong[key])}"
        )
    return TimmBackbone(name, pretrained=pretrained, norm=norm, frozen_stages=frozen_stages)
