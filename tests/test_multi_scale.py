"""Multi-scale testing: sizes, mirroring, ranges of areas and the way back to the picture's own pixels."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from boxmatch.models.yolo import YOLO
from boxmatch.multi_scale import MultiScale, Scale, published_scales
from boxmatch.structures import Detections


class BrightFinder(YOLO):
    """Finds one box, around the bright pixels of each picture, and notes the sizes it was shown."""

    def __init__(self) -> None:
        super().__init__(["bright"], channel_sparsity=0.25)
        self.shown: list[tuple[int, ...]] = []

    def predict(self, images: Tensor, *, postprocess=None, sizes=None) -> list[Detections]:
        assert all(side % 32 == 0 for side in images.shape[2:])
        assert (sizes == sizes[0]).all()
        self.shown.append((len(sizes), *sizes[0].tolist()))
        found = []
        for image in images:
            y, x = (image[0] > 127).nonzero().unbind(1)
            box = torch.stack((x.min(), y.min(), x.max() + 1, y.max() + 1)).float()
            found.append(Detections(box[None], torch.tensor([0.5]), torch.tensor([0])))
        return found


def picture(width: int, height: int, box: tuple[int, int, int, int]) -> Tensor:
    """Black with one bright box."""
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    left, top, right, bottom = box
    pixels[:, top:bottom, left:right] = 255
    return pixels


def test_what_is_found_at_all_sizes_and_mirrored_becomes_one_box_in_own_pixels():
    box = (20, 10, 60, 50)
    (found,) = MultiScale(BrightFinder(), [100, 150, 60])([picture(120, 100, box)])
    assert len(found) == 1
    assert_close(found.boxes[0], torch.tensor(box).float(), atol=0.6, rtol=0)
    assert found.scores.tolist() == [0.5]


def test_each_scale_is_looked_at_plain_and_mirrored_and_pictures_of_one_size_together():
    finder = BrightFinder()
    pictures = [picture(120, 100, (20, 10, 60, 50)), picture(80, 90, (1, 2, 30, 40))]
    pictures += [picture(240, 200, (40, 20, 120, 100))]  # as large as the first after resizing
    MultiScale(finder, [50, 100])(pictures)
    assert finder.shown == [(2, 50, 60)] * 2 + [(1, 56, 50)] * 2 + [(2, 100, 120)] * 2 + [(1, 112, 100)] * 2
    finder.shown.clear()
    MultiScale(finder, [50], flip=False, batch_size=1)(pictures)
    assert finder.shown == [(1, 50, 60)] * 2 + [(1, 56, 50)]


def test_areas_count_in_pixels_of_the_resized_picture():
    shown = [picture(100, 100, (10, 10, 50, 50))]  # 40² in its own pixels, 80² at twice the size
    assert len(MultiScale(BrightFinder(), [Scale(200, 400, 79, 90)], flip=False)(shown)[0]) == 1
    assert len(MultiScale(BrightFinder(), [Scale(200, 400, 80, 90)], flip=False)(shown)[0]) == 0
    assert len(MultiScale(BrightFinder(), [Scale(200, 400, 0, 80)], flip=False)(shown)[0]) == 0
    assert len(MultiScale(BrightFinder(), [Scale(200, 400, 0, 81)], flip=False)(shown)[0]) == 1


def test_one_scale_of_the_own_size_is_the_detector_itself():
    torch.manual_seed(0)
    detector = YOLO(["a", "b"], channel_sparsity=0.25)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    # NMS leaves no two boxes with an IoU of 0.66, so merging has nothing to do.
    multi = MultiScale(detector, [64], flip=False)
    for found, expected in zip(multi(list(images)), detector.predict(images), strict=True):
        assert len(found) == len(expected) > 0
        assert_close(found.scores, expected.scores)
        assert_close(found.boxes, expected.boxes)
        assert torch.equal(found.labels, expected.labels)


def test_a_picture_gives_the_same_alone_and_in_company():
    torch.manual_seed(1)
    detector = YOLO(["a", "b"], channel_sparsity=0.25)
    pictures = [
        torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((70, 90), (64, 64), (70, 90))
    ]
    multi = MultiScale(detector, [64, 96], soft=True, max_detections=50)
    together = multi(pictures)
    for found, alone in zip(together, [multi([one])[0] for one in pictures], strict=True):
        assert len(found) == len(alone) <= 50
        assert_close(found.scores, alone.scores, atol=1e-5, rtol=0)
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)


def test_no_picture_gives_no_result():
    assert MultiScale(BrightFinder(), [64])([]) == []


def test_the_published_scales_are_thirteen_and_the_first_takes_all_boxes():
    scales = published_scales()
    assert [scale.short_side for scale in scales] == [
        *(800, 400, 500, 600, 640, 700, 900, 1000, 1100, 1200, 1300, 1400, 1800)
    ]
    assert scales[0] == Scale(800, 1333)
    assert scales[1] == Scale(400, 1333, 96, 1e4)
    assert scales[-1] == Scale(1800, 3000, 0, 96)
    assert MultiScale(BrightFinder()).scales == scales


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": []}, "one or more scales"),
        ({"min_iou": 0.0}, "min_iou"),
        ({"max_detections": 0}, "max_detections"),
        ({"batch_size": 0}, "batch_size"),
        ({"scales": [0]}, "1 <= short_side"),
    ],
)
def test_options_out_of_range_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        MultiScale(BrightFinder(), **arguments)


def test_an_empty_range_and_a_float_picture_are_refused():
    with pytest.raises(ValueError, match="least_side"):
        Scale(100, 200, 50, 50)
    with pytest.raises(ValueError, match="picture 0"):
        MultiScale(BrightFinder(), [64])([torch.zeros(3, 8, 8)])
