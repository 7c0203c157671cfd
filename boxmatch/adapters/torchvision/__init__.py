"""Any fitting assigner in torchvision's RetinaNet, FCOS and Faster R-CNN, by one line.

model = use_assigner(retinanet_resnet50_fpn(num_classes=21), ATSS())
"""

from .install import restore, use_assigner

__all__ = ["restore", "use_assigner"]
