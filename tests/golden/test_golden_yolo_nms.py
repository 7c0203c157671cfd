"""Decoding and post-processing give the reference's detections."""

from itertools import pairwise
from pathlib import Path

import torch
from torch.testing import assert_close
from yolo_case import YOLOCase

from boxmatch.postprocess import PostProcess


def test_detections_equal_the_reference(nms_file: Path) -> None:
    case = YOLOCase.read(nms_file)
    postprocess = PostProcess(
        score_threshold=case.config["conf_thrs"],
        nms_iou=case.config["nms_iou"],
        max_detections=case.config["max_nms_num"],
    )
    found = postprocess(case.decoded(), (case.side, case.side))
    ends = case.arrays["det_ptr"].tolist()
    assert [len(detections) for detections in found] == [end - start for start, end in pairwise(ends)]
    expected = torch.from_numpy(case.arrays["det"])
    assert_close(torch.cat([d.scores for d in found]), expected[:, 0], rtol=1e-4, atol=1e-6)
    assert_close(torch.cat([d.boxes for d in found]), expected[:, 1:5], rtol=1e-4, atol=1e-3)
    assert torch.equal(torch.cat([d.labels for d in found]), expected[:, 5].long())
