"""The published settings."""

import pytest

from boxmatch.assign import AllGrid, Assigner, NearbyGrid, SingleGrid
from boxmatch.models import COCO_ANCHORS, simple_yolo
from boxmatch.postprocess import PostProcess


@pytest.mark.parametrize(
    ("method", "assigner"), [("single_grid", SingleGrid), ("nearby_grid", NearbyGrid), ("all_grid", AllGrid)]
)
def test_simple_yolo_has_the_shipped_voc_settings(method: str, assigner: type[Assigner]) -> None:
    detector = simple_yolo(["a", "b"], method, channel_sparsity=0.25)
    assert type(detector.assigner) is assigner
    assert detector.assigner.match_iou_thres == 0.0625
    assert detector.assigner.filter_by_max_iou
    assert (detector.coder.method, detector.coder.wh_decode) == (method, "linear")
    assert detector.postprocess == PostProcess(score_threshold=0.001, nms_iou=0.6, max_detections=100)
    loss = detector.loss
    assert (loss.iou_loss_type, loss.assign_conf_method) == ("ciou_lite", "iou")
    assert (loss.lambda_obj, loss.lambda_coord, loss.lambda_class) == (1.0, 0.1, 1.0)
    assert (loss.focal_loss_gamma, loss.class_focal_gamma) == (3.5, None)
    assert (loss.lambda_scales, loss.use_noobj_loss) == ((1.0, 1.0, 1.0), False)
    assert (loss.objectness_average, loss.box_average) == ("cells", "layer")


def test_defaults_are_resnet18_at_three_quarters_with_nearby_grid() -> None:
    detector = simple_yolo([f"class {i}" for i in range(20)])
    assert detector.num_parameters == 7_799_760
    assert detector.architecture == {
        "backbone": "resnet18",
        "channel_sparsity": 0.75,
        "anchors": [[list(anchor) for anchor in level] for level in COCO_ANCHORS],
        "activation": "relu",
        "head_bias": False,
    }
    assert isinstance(detector.assigner, NearbyGrid)
