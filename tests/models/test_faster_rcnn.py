"""Faster R-CNN as a whole: both stages, both rules of the first, and what they make of few or no boxes."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from boxmatch.assign import ATSS, MaxIoU, TaskAligned
from boxmatch.checkpoints import load_detector, save_detector
from boxmatch.models import FasterRCNN, faster_rcnn, paa_faster_rcnn
from boxmatch.models.region_classifier import RegionClassifier
from boxmatch.postprocess import PostProcess
from boxmatch.structures import Targets

sys.path.append(str(Path(__file__).resolve().parents[1] / "assign"))
from paa_loops import Options, paa

SMALL = {
    "backbone": "resnet18",
    "norm": "batch",
    "frozen_stages": 0,
    "channels": 16,
    "classifier_width": 16,
    "anchor_size": 3.0,
    "samples": 32,
    "pre_nms_topk": (100, 50),
    "post_nms_topk": (40, 60),
}
RULES = ("paa", "max_iou")
FIRST = {"region_objectness", "region_box"}
TARGETS = Targets.from_lists([[[4, 4, 40, 36], [30, 10, 60, 60]], []], [[0, 1], []])
EMPTY = Targets.from_lists([[], []], [[], []])


def small(rpn: str = "paa", **options) -> FasterRCNN:
    torch.manual_seed(0)
    return FasterRCNN(["a", "b"], rpn=rpn, **(SMALL | options)).train()


@pytest.fixture(scope="module")
def networks() -> dict[str, FasterRCNN]:
    """One of each rule; tests leave their weights as they are."""
    return {rpn: small(rpn) for rpn in RULES}


def pictures(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 255, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)


def gradients(network: FasterRCNN, terms: dict[str, Tensor]) -> dict[str, Tensor | None]:
    network.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    return {name: weight.grad for name, weight in network.named_parameters()}


@pytest.mark.parametrize("rpn", RULES)
def test_every_weight_learns_from_every_term(networks, rpn: str):
    terms = networks[rpn].losses(pictures(), TARGETS)
    assert set(terms) == FIRST | {"class", "box"} | ({"region_iou"} if rpn == "paa" else set())
    assert all(bool(torch.isfinite(term)) and term > 0 for term in terms.values())
    found = gradients(networks[rpn], terms)
    assert [name for name, grad in found.items() if grad is None or not grad.any()] == []


@pytest.mark.parametrize("rpn", RULES)
def test_a_batch_without_boxes_gives_exact_zeros_and_leaves_no_weight_unused(networks, rpn: str):
    terms = networks[rpn].losses(pictures(), EMPTY)
    assert all(terms[name].item() == 0 for name in terms if name not in ("region_objectness", "class"))
    # What DistributedDataParallel asks of the rank that has no boxes while another has some.
    found = gradients(networks[rpn], terms)
    assert [name for name, grad in found.items() if grad is None] == []
    assert not found["classifier.deltas.weight"].any()


def test_crowds_alone_are_as_no_boxes_but_no_background_either(networks):
    crowd = Targets.from_lists([[[0, 0, 64, 64]], [[0, 0, 64, 64]]], [[0], [1]], [[True], [True]])
    network = networks["paa"]
    terms = network.losses(pictures(), crowd)
    assert terms["box"].item() == terms["region_box"].item() == 0
    assert [name for name, grad in gradients(network, terms).items() if grad is None] == []
    # Every prior with half of its area inside takes no part.
    priors = network.priors((64, 64))
    ignored = network.assign(priors, crowd, network(pictures())).ignored
    inside = (priors.boxes >= 0).all(1) & (priors.boxes <= 64).all(1)
    assert ignored[:, inside].all()


def test_the_first_stage_sees_objects_without_classes_and_keeps_theirs(networks):
    priors = networks["paa"].priors((64, 64))
    predictions = networks["paa"](pictures())
    other = replace(TARGETS, labels=1 - TARGETS.labels)
    one, two = (networks["paa"].assign(priors, targets, predictions) for targets in (TARGETS, other))
    assert torch.equal(one.pairs.prior, two.pairs.prior) and len(one.pairs) > 0
    assert one.targets is TARGETS and two.targets is other


def test_paa_on_these_priors_equals_loops_over_boxes_and_priors():
    """Section 8 of the specification: BCE + L1, three shapes of a place pooled, nine per level."""
    network = small(channels=32)
    images = pictures()
    priors, targets = network.priors(images), replace(TARGETS, labels=torch.zeros_like(TARGETS.labels))
    with torch.no_grad():
        predictions = network(images)
        torch.manual_seed(2)
        noise = torch.randn_like(predictions.logits)
        predictions = replace(predictions, logits=predictions.logits + noise)
    found = network.assign(priors, TARGETS, predictions)
    outcomes = paa(priors, targets, predictions, Options(class_cost="bce", box_cost="l1"))
    assert any(outcome.clear for outcome in outcomes)
    for row, expected in enumerate(outcomes):
        if expected.clear:
            assert set(found.candidates.prior[found.candidates.gt == row].tolist()) == expected.candidates
            assert set(found.pairs.prior[found.pairs.gt == row].tolist()) == expected.positive


def test_the_priors_are_those_of_the_published_network():
    with torch.device("meta"):
        network = paa_faster_rcnn(["a"])
    sizes = [[round((w * h) ** 0.5) for w, h in level] for level in network.grid.anchors]
    assert sizes == [[side] * 3 for side in (32, 64, 128, 256, 512)]
    assert [round(h / w, 6) for w, h in network.grid.anchors[0]] == [0.5, 1.0, 2.0]
    assert network.grid.strides == (4, 8, 16, 32, 64) and network.grid.center == 0


def test_it_has_as_many_weights_as_torchvisions_less_the_boxes_of_the_background():
    names = [str(number) for number in range(80)]
    with torch.device("meta"):
        theirs = fasterrcnn_resnet50_fpn(weights_backbone=None, num_classes=81)
        ours, branch = faster_rcnn(names), paa_faster_rcnn(names)
        bias_free = faster_rcnn(names, bias_free_fpn=True)
    published = sum(
        weight.numel()
        for name, weight in theirs.named_parameters()
        if not re.search(r"\.bn\d|downsample\.1", name)  # ours are frozen
    )
    # Theirs makes a box of the background too.
    assert published - count(ours) == 4 * (1024 + 1)
    assert count(branch) - count(ours) == 3 * (256 * 9 + 1)
    assert count(ours) - count(bias_free) == 8 * 256


def count(network: FasterRCNN) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("rpn", RULES)
def test_a_saved_detector_comes_back_and_finds_the_same(networks, rpn: str, tmp_path: Path):
    network = networks[rpn]
    again = load_detector(save_detector(network, tmp_path))
    assert isinstance(again, FasterRCNN) and repr(again.assigner) == repr(network.assigner)
    everything = replace(network.postprocess, score_threshold=0.2)
    for ours, theirs in zip(
        network.predict(pictures(), postprocess=everything),
        again.predict(pictures(), postprocess=everything),
        strict=True,
    ):
        assert len(ours) > 0
        assert torch.equal(ours.boxes, theirs.boxes) and torch.equal(ours.scores, theirs.scores)


def test_detections_lie_inside_each_picture_and_the_mode_is_put_back(networks):
    network = networks["paa"]
    sizes = torch.tensor([[64, 64], [40, 30]])
    found = network.predict(pictures(), postprocess=PostProcess(score_threshold=0.1), sizes=sizes)
    assert network.training and len(found[1]) > 0
    assert (found[1].boxes <= torch.tensor([30.0, 40.0, 30.0, 40.0])).all()
    for one in found:
        assert one.labels.unique().tolist() == [0, 1]
        assert torch.equal(one.scores, one.scores.sort(descending=True).values)


def test_a_picture_finds_the_same_alone_and_in_a_batch(networks):
    everything = PostProcess(score_threshold=0.1)
    together = networks["paa"].predict(pictures(3), postprocess=everything)
    alone = networks["paa"].predict(pictures(3)[1:2], postprocess=everything)[0]
    assert len(alone) == len(together[1])
    torch.testing.assert_close(alone.scores, together[1].scores, rtol=1e-4, atol=1e-5)


def test_any_hard_assigner_may_stand_in_the_first_stage(tmp_path: Path):
    network = small("max_iou", assigner=ATSS())
    terms = network.losses(pictures(), TARGETS)
    assert terms["region_box"] > 0 and network.head.iou is None
    assert isinstance(load_detector(save_detector(network, tmp_path)).assigner, ATSS)
    with pytest.raises(ValueError, match="expected a hard assignment"):
        small("max_iou", assigner=TaskAligned()).losses(pictures(), TARGETS)


def test_outputs_that_are_not_finite_are_named_by_stage(networks, tmp_path: Path):
    network = load_detector(save_detector(networks["paa"], tmp_path))
    torch.nn.init.constant_(network.classifier.deltas.bias, torch.nan)
    assert network.broken_output(pictures()) == ("box number of a proposal", 0)
    with pytest.raises(ValueError, match="box number of a proposal that is not finite for image 0"):
        network.predict(pictures())
    torch.nn.init.constant_(network.head.iou.bias, torch.nan)
    assert network.broken_output(pictures())[0] == "quality of level 1 (stride 4)"


def test_the_second_stage_learns_the_class_and_the_deltas_of_its_proposals():
    torch.manual_seed(0)
    classifier = RegionClassifier(8, 2, width=4, samples=4)
    for weight in classifier.parameters():
        torch.nn.init.zeros_(weight)
    features = [torch.randn(1, 8, side, side) for side in (16, 8, 4, 2, 1)]
    # Half of it is the box: positive; the box itself joins, and two of background are drawn beside them.
    proposals = [torch.tensor([[0.0, 0.0, 32.0, 32.0], [40.0, 40.0, 60.0, 60.0], [0.0, 40.0, 20.0, 60.0]])]
    targets = Targets.from_lists([[[0.0, 0.0, 32.0, 16.0]]], [[1]])
    totals = [classifier.losses(features, proposals, (64, 64), targets) for _ in range(20)]
    # Three classes, background included, all equally likely; one positive is a quarter of four.
    torch.testing.assert_close(totals[0]["class"], torch.tensor(3.0).log())
    wanted = 10 * 8 / 32 + 5 * torch.tensor(2.0).log()  # the square is moved up by 8 and halved
    boxes = torch.stack([total["box"] for total in totals])
    # The positive drawn was the proposal, or the box itself, which has nothing to learn.
    expected = torch.where(boxes > 0, wanted / 3, 0.0)
    torch.testing.assert_close(boxes, expected)
    assert 0 < boxes.count_nonzero() < len(boxes)


def test_the_classifier_runs_with_half_precision_around_it(networks):
    with torch.autocast("cpu", torch.bfloat16):
        terms = networks["paa"].losses(pictures(), TARGETS)
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert None not in gradients(networks["paa"], terms).values()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rpn": "atss"}, "expected rpn in|Type-check"),
        ({"input_norm": "caffe2"}, "expected input_norm in|Type-check"),
        ({"pre_nms_topk": (0, 1)}, "pre_nms_topk of 1 or more"),
        ({"post_nms_topk": (1, 0)}, "post_nms_topk of 1 or more"),
        ({"classifier_width": 0}, "width and samples of 1 or more"),
        ({"samples": 0}, "width and samples of 1 or more"),
        ({"anchor_ratios": ()}, "ratios above 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message: str):
    with pytest.raises(Exception, match=message):
        small(**options)


def test_its_rules_are_the_published_ones(networks):
    assert repr(networks["max_iou"].assigner) == repr(MaxIoU(0.7, 0.3, low_quality="keep_argmax"))
    paa_rule = networks["paa"].assigner
    assert (paa_rule.topk, paa_rule.positive, paa_rule.boundary) == (9, 0.1, "c")
    assert (paa_rule.class_cost, paa_rule.box_cost) == ("bce", "l1")
    assert (networks["paa"].loss.samples, networks["paa"].loss.positive_fraction) == (256, 0.5)
    with torch.device("meta"):
        published = paa_faster_rcnn(["a"])
    assert (published.training_proposals.pre_nms_topk, published.proposals.pre_nms_topk) == (2000, 1000)
    assert (published.training_proposals.post_nms_topk, published.proposals.post_nms_topk) == (1000, 2000)
    assert published.proposals.nms_iou == 0.7
