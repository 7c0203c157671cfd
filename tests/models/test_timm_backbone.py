"""Networks of `timm` as backbones of dense detectors."""

import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import nn

from boxmatch.assign import NearbyGrid
from boxmatch.checkpoints import load_detector, save_detector
from boxmatch.export import export_onnx, export_torch
from boxmatch.models import DenseDetector, atss, dual_weight, dynamic_atss, fcos, paa, retinanet
from boxmatch.models.backbone_choice import dense_backbone
from boxmatch.models.cost import multiply_accumulates
from boxmatch.models.timm_backbone import TimmBackbone
from boxmatch.models.timm_survey import survey

timm = pytest.importorskip("timm")

SMALL = {"channels": 64, "tower_length": 1}
# Batch norm; batch norm that carries its activation; layer norm and no map of stride 2.
NETWORKS = ("resnet10t", "mobilenetv3_small_050", "convnext_atto")
LIKE_THEM = (dynamic_atss, paa, dual_weight, fcos)
CHANNELS = ((128, 256, 512), (16, 24, 288), (80, 160, 320))


def detector(backbone: str, **options) -> DenseDetector:
    torch.manual_seed(0)
    options = {"assigner": NearbyGrid(), "loss": nn.Identity(), **SMALL, **options}
    return DenseDetector(["a", "b"], backbone=f"timm/{backbone}", **options)


@pytest.mark.parametrize(("name", "channels"), list(zip(NETWORKS, CHANNELS)))
def test_maps_have_strides_8_16_and_32_rounded_up(name, channels):
    net = TimmBackbone(f"timm/{name}").eval()
    assert net.channels == channels
    with torch.no_grad():
        maps = net(torch.rand(2, 3, 65, 100))
    assert [tuple(found.shape) for found in maps] == [
        (2, width, *size) for width, size in zip(channels, [(9, 13), (5, 7), (3, 4)])
    ]


@pytest.mark.slow
def test_windows_of_attention_take_every_size_and_maps_come_channels_first():
    net = TimmBackbone("timm/swin_tiny_patch4_window7_224").eval()
    assert net.channels_last
    with torch.no_grad():
        maps = net(torch.rand(1, 3, 96, 160))
    assert [tuple(found.shape[1:]) for found in maps] == [(192, 12, 20), (384, 6, 10), (768, 3, 5)]


def test_maps_are_those_of_the_whole_network():
    torch.manual_seed(0)
    net = TimmBackbone("timm/resnet10t", norm="eval").eval()
    images = torch.rand(1, 3, 64, 64)
    c5 = net.body(images)[-1]
    whole = timm.create_model("resnet10t").eval()
    whole.load_state_dict(net.body.state_dict(), strict=False)
    torch.testing.assert_close(c5, whole.forward_features(images))
    torch.testing.assert_close(net(images)[-1], c5)


def test_pictures_reach_a_network_in_the_colours_of_its_weights():
    net = TimmBackbone("timm/tf_mobilenetv3_small_minimal_100")
    mean, deviation = (
        torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    picture = torch.rand(3, 4, 4)
    ours = (picture - mean) / deviation * net.scale + net.shift
    torch.testing.assert_close(ours, (picture - 0.5) / 0.5)
    assert {"scale", "shift"} <= net.state_dict().keys()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("frozen_stages", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 4))])
def test_what_learns_gets_a_gradient_and_the_rest_none(name, frozen_stages):
    net = TimmBackbone(f"timm/{name}", norm="batch", frozen_stages=frozen_stages)
    sum(found.mean() for found in net(torch.rand(2, 3, 64, 64))).backward()
    without = {key for key, parameter in net.named_parameters() if parameter.grad is None}
    assert without == {key for key, parameter in net.named_parameters() if not parameter.requires_grad}
    assert bool(without) == (frozen_stages > 0)


def test_stages_are_counted_as_in_other_resnets():
    def learning(frozen_stages: int) -> set[str]:
        net = TimmBackbone("timm/resnet10t", frozen_stages=frozen_stages)
        return {
            key.split(".")[0] for key, parameter in net.body.named_parameters() if parameter.requires_grad
        }

    assert learning(1) == {"layer1", "layer2", "layer3", "layer4"}
    assert learning(2) == {"layer2", "layer3", "layer4"}
    assert learning(4) == {"layer4"}
    assert learning(5) == set()


@pytest.mark.parametrize("norm", ["frozen", "eval", "batch"])
def test_frozen_stages_do_not_change_their_statistics(norm):
    net = TimmBackbone("timm/resnet10t", norm=norm, frozen_stages=2)
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules()) == (norm != "frozen")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(torch.rand(2, 3, 64, 64))
    after = net.state_dict()
    changed = {name.split(".")[1] for name in before if not torch.equal(after[name], before[name])}
    assert changed == ({"layer2", "layer3", "layer4"} if norm == "batch" else set())
    assert net.training


def test_activations_that_a_conversion_of_batch_norm_drops_are_missed():
    plain = TimmBackbone("timm/resnet10t", norm="batch")
    nn.SyncBatchNorm.convert_sync_batchnorm(plain).train()
    joined = TimmBackbone("timm/mobilenetv3_small_050", norm="batch")
    with pytest.raises(ValueError, match=r"leave trainer\.sync_batchnorm out"):
        nn.SyncBatchNorm.convert_sync_batchnorm(joined).train()


def test_a_local_file_gives_its_weights(tmp_path: Path):
    torch.manual_seed(1)
    whole = timm.create_model("resnet10t", num_classes=7).eval()
    torch.save(whole.state_dict(), tmp_path / "own.pth")
    net = TimmBackbone("timm/resnet10t", pretrained=str(tmp_path / "own.pth")).eval()
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(net(images)[-1], whole.forward_features(images))
    assert not net.body.pretrained_cfg  # else it would keep the file's tensors


def test_weights_that_do_not_fit_are_refused(tmp_path: Path):
    weights = timm.create_model("resnet10t").state_dict()
    torch.save(
        {key: value for key, value in weights.items() if key != "layer3.0.conv1.weight"}, tmp_path / "a.pth"
    )
    with pytest.raises(ValueError, match=r"1 tensors .* first is layer3\.0\.conv1\.weight, .* got none"):
        TimmBackbone("timm/resnet10t", pretrained=str(tmp_path / "a.pth"))
    torch.save({**weights, "extra": torch.zeros(1)}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"first is extra, expected none"):
        TimmBackbone("timm/resnet10t", pretrained=str(tmp_path / "b.pth"))
    with pytest.raises(FileNotFoundError, match="no weight file"):
        TimmBackbone("timm/resnet10t", pretrained=str(tmp_path / "c.pth"))


def test_weights_are_downloaded_only_when_asked_for(monkeypatch):
    def unreachable(*arguments, **options):
        raise ConnectionRefusedError("no network here")

    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    TimmBackbone("timm/resnet10t")
    with pytest.raises(ConnectionError, match="pretrained the path of a local file"):
        TimmBackbone("timm/resnet10t", pretrained=True)


@pytest.mark.parametrize(
    "preset", [atss, retinanet, *(pytest.param(each, marks=pytest.mark.slow) for each in LIKE_THEM)]
)
def test_every_preset_takes_a_network_of_timm(preset):
    made = preset(["a", "b"], backbone="timm/resnet10t", **SMALL)
    found = made.predict(torch.randint(0, 255, (1, 3, 64, 96), dtype=torch.uint8))
    assert len(found) == 1
    assert made.architecture["backbone"] == "timm/resnet10t"


def test_a_saved_detector_comes_back_and_says_the_same(tmp_path: Path):
    made = atss(["a", "b"], backbone="timm/convnext_atto", **SMALL).eval()
    with torch.inference_mode():
        again = load_detector(save_detector(made, tmp_path))
        images = torch.randint(0, 255, (1, 3, 64, 96), dtype=torch.uint8)
        assert torch.equal(made(images).logits, again(images).logits)


def test_cost_is_counted_without_running_the_network():
    plain, wide = (multiply_accumulates(detector(name), 64, 64) for name in ("resnet10t", "resnet18"))
    assert 0 < plain < wide


@pytest.fixture
def unchecked_shapes():
    """Shape checks compare lengths, and an open length that was compared is open no more."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("name", "kind", "dynamic"),
    [
        ("resnet10t", "torch", False),
        ("convnext_atto", "torch", True),
        ("mobilenetv3_small_050", "onnx", True),
    ],
)
def test_exported_networks_give_the_same_boxes(name, kind, dynamic, tmp_path: Path):
    made = atss(["a", "b"], backbone=f"timm/{name}", **SMALL).eval()
    if kind == "torch":
        export_torch(made, tmp_path / "a.pt2", size=(96, 96), dynamic=dynamic)
        run = torch.export.load(tmp_path / "a.pt2").module()
    else:
        runtime = pytest.importorskip("onnxruntime")
        export_onnx(made, tmp_path / "a.onnx", size=(96, 96), dynamic=dynamic)
        session = runtime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])

        def run(images):
            return [torch.from_numpy(found) for found in session.run(None, {"images": images.numpy()})]

    for shape in [(2, 3, 160, 192), (3, 3, 224, 160)] if dynamic else [(1, 3, 96, 96)]:
        images = torch.randint(0, 255, shape, dtype=torch.uint8)
        with torch.no_grad():
            torch.testing.assert_close(run(images)[0], made(images).boxes, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: survey("resnet10tt"), "did you mean timm/resnet10t"),
        (lambda: survey("hf-hub:some/net"), "has no network 'hf-hub:some/net'"),
        (lambda: survey("resnet10t.no_such_weights"), "Invalid pretrained tag"),
        (lambda: survey("vit_tiny_patch16_224"), "gives strides 16, 16, 16"),
        (lambda: survey("efficientvit_m0"), "gives strides 16, 32, 64"),
        (lambda: survey("coatnet_0_224"), "pictures of every size, but timm/coatnet_0_224 refuses"),
        (lambda: survey("inception_v3"), "divided by 8, 16 and 32"),
        (lambda: detector("convnext_atto", frozen_stages=1), "among 0, 2, 3, 4, 5"),
        (lambda: detector("resnet10t", frozen_stages=6), "among 0, 1, 2, 3, 4, 5"),
        (lambda: detector("resnet10t", stride_in_1x1=True), "leave stride_in_1x1=false"),
        (lambda: detector("resnet10t", norm_eps=0.0), "leave norm_eps=1e-5"),
        (lambda: detector("resnet10t", deformable_stages=(3,)), r"leave deformable_stages=\[\]"),
        (lambda: detector("resnet10t", input_norm="caffe"), "the colours of its own weights"),
        (lambda: detector("resnet10t", norm="none"), "norm in|Type-check"),
        (lambda: dense_backbone("resnet51"), "or timm/ and a name"),
    ],
)
def test_networks_and_options_that_do_not_fit_are_refused(make, message):
    # Words that are no choice are met by the tests' type checker before the constructor sees them.
    with pytest.raises(Exception, match=message):
        make()


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'boxmatch\[timm\]'"):
        detector("resnet10t")
