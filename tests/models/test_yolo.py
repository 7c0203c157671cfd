"""The simple YOLO against the published counts and names."""

from pathlib import Path

import pytest
import torch

from boxmatch.assign import AllGrid, Assigner, NearbyGrid, SingleGrid
from boxmatch.coders import GridCoder
from boxmatch.models import COCO_ANCHORS, YOLO
from boxmatch.structures import Assignment

KEYS = Path(__file__).parents[3] / "shared" / "keys"


def yolo(backbone: str, channel_sparsity: float, num_classes: int = 20, **options: object) -> YOLO:
    """A network without memory, for counting."""
    with torch.device("meta"):
        return YOLO(
            [f"c{i}" for i in range(num_classes)],
            backbone=backbone,
            channel_sparsity=channel_sparsity,
            **options,
        )


# The table of the reference's README was made with 2 classes, its VOC models have 20.
@pytest.mark.parametrize(
    ("backbone", "channel_sparsity", "two_classes", "twenty_classes", "parts"),
    [
        ("resnet18", 0.75, 7763472, 7799760, (6290352, 369792, 1089216, 50400)),
        ("resnet34", 0.75, 13450704, 13486992, (11977584, 369792, 1089216, 50400)),
        ("resnet50", 0.75, 36490416, 36635568, (13234992, 5902848, 17296128, 201600)),
        ("darknet", 0.75, 28675944, 28748520, (22835880, 1476864, 4334976, 100800)),
        ("resnet18", 0.25, 871600, 883696, (702096, 41344, 123456, 16800)),
        ("resnet18", 0.5, 3459424, 3483616, (2798880, 164608, 486528, 33600)),
        ("resnet18", 1.0, 13783744, 13832128, (11176512, 656896, 1931520, 67200)),
        ("darknet", 0.25, 3203960, 3228152, (2543416, 164608, 486528, 33600)),
        ("darknet", 0.5, 12762608, 12810992, (10155376, 656896, 1931520, 67200)),
        ("darknet", 1.0, 50943968, 51040736, (40584928, 2624512, 7696896, 134400)),
    ],
)
def test_parameter_counts_are_those_of_the_reference(
    backbone: str, channel_sparsity: float, two_classes: int, twenty_classes: int, parts: tuple[int, ...]
) -> None:
    assert yolo(backbone, channel_sparsity, 2).num_parameters == two_classes
    detector = yolo(backbone, channel_sparsity)
    assert detector.num_parameters == twenty_classes
    modules = (detector.backbone, detector.spp, detector.pan, detector.det_head)
    assert tuple(sum(p.numel() for p in module.parameters()) for module in modules) == parts


@pytest.mark.parametrize(
    ("backbone", "channel_sparsity", "count"),
    [("resnet34", 1.0, 23940288), ("resnet50", 1.0, 64997952), ("resnet101", 0.75, 47328432)],
)
def test_larger_networks_have_the_reference_counts_too(
    backbone: str, channel_sparsity: float, count: int
) -> None:
    assert yolo(backbone, channel_sparsity).num_parameters == count


@pytest.mark.parametrize(
    ("backbone", "entries"), [("resnet18", 215), ("resnet34", 311), ("resnet50", 413), ("darknet", 407)]
)
def test_state_has_the_reference_number_of_entries(backbone: str, entries: int) -> None:
    assert len(yolo(backbone, 0.75).state_dict()) == entries


@pytest.mark.parametrize(("backbone", "channel_sparsity"), [("resnet18", 0.75), ("darknet", 0.5)])
def test_state_names_order_and_shapes_are_those_of_the_reference(
    backbone: str, channel_sparsity: float
) -> None:
    file = KEYS / f"yolo_{backbone}_{channel_sparsity}.txt"
    if not file.is_file():
        pytest.skip(f"no key list at {file}")
    listed = [line.split("\t") for line in file.read_text().splitlines()]
    state = yolo(backbone, channel_sparsity).state_dict()
    ours = [[name, str(tuple(t.shape)), str(t.dtype).removeprefix("torch.")] for name, t in state.items()]
    assert ours == listed


@pytest.mark.parametrize(
    ("assigner", "method"), [(SingleGrid, "single_grid"), (NearbyGrid, "nearby_grid"), (AllGrid, "all_grid")]
)
def test_the_assigner_decides_how_far_boxes_reach(assigner: type[Assigner], method: str) -> None:
    detector = yolo("resnet18", 0.25, assigner=assigner(), wh_decode="exp")
    assert detector.coder == GridCoder(method, "exp")


class Nobody(Assigner):
    """Gives no prior to anyone."""

    def assign(self, priors: object, targets: object, predictions: object, story: object) -> Assignment:
        raise NotImplementedError


def test_an_assigner_of_ones_own_needs_the_method_named() -> None:
    with pytest.raises(ValueError, match=r"Nobody does not say .* give method: single_grid"):
        yolo("resnet18", 0.25, assigner=Nobody())
    assert yolo("resnet18", 0.25, assigner=Nobody(), method="all_grid").coder.method == "all_grid"


def test_coder_and_method_together_are_refused() -> None:
    with pytest.raises(ValueError, match="either coder or method"):
        yolo("resnet18", 0.25, coder=GridCoder("all_grid"), method="single_grid")
    with pytest.raises(ValueError, match="either coder or method"):
        yolo("resnet18", 0.25, coder=GridCoder("all_grid"), wh_decode="exp")


@pytest.mark.parametrize(
    "anchors",
    [[], [[(1.0, 1.0)]] * 2, [[(1.0, 1.0)], [(1.0, 1.0)], [(1.0, 1.0), (2.0, 2.0)]], [[], [], []]],
    ids=str,
)
def test_anchors_must_be_equally_many_for_three_strides(anchors: list[list[tuple[float, float]]]) -> None:
    with pytest.raises(ValueError, match="same number of anchors"):
        yolo("resnet18", 0.25, anchors=anchors)


def test_two_anchors_per_cell_shrink_the_head() -> None:
    anchors = [level[:2] for level in COCO_ANCHORS]
    detector = yolo("resnet18", 0.25, anchors=anchors)
    assert [head.out_channels for head in detector.det_head.heads] == [50, 50, 50]


def test_pretrained_darknet_is_refused() -> None:
    with pytest.raises(ValueError, match="no pretrained darknet"):
        yolo("darknet", 0.25, pretrained=True)


@pytest.mark.parametrize("names", [[], ["cell", "cell"]])
def test_class_names_must_be_given_and_differ(names: list[str]) -> None:
    with pytest.raises(ValueError, match="class names"):
        YOLO(names, channel_sparsity=0.25)


def test_rows_follow_level_row_column_anchor() -> None:
    detector = YOLO(["a", "b"], channel_sparsity=0.25)
    sizes = [(2, 3), (1, 2), (1, 1)]
    # Each number says where it stands: level, anchor, row, column, value.
    maps = [
        torch.tensor(
            [
                [
                    [
                        [[10000 * i + 1000 * a + 100 * y + 10 * x + k for k in range(7)] for x in range(w)]
                        for y in range(h)
                    ]
                    for a in range(3)
                ]
            ],
            dtype=torch.float32,
        )
        for i, (h, w) in enumerate(sizes)
    ]
    logits, deltas, objectness = detector.flatten(maps)
    places = [
        10000 * i + 1000 * a + 100 * y + 10 * x
        for i, (h, w) in enumerate(sizes)
        for y in range(h)
        for x in range(w)
        for a in range(3)
    ]
    assert objectness[0].tolist() == places
    assert deltas[0, :, 2].tolist() == [place + 3 for place in places]
    assert logits[0, :, 1].tolist() == [place + 6 for place in places]
