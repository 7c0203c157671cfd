"""Misspelt options, class names and values, and wrong configuration files."""

from pathlib import Path

import pytest
import yaml
from typed_commands import failing

from boxmatch.cli import main
from boxmatch.commands.suggestions import advice, key_advice


@pytest.mark.parametrize(
    ("arguments", "advised"),
    [
        (["--detector.asigner", "AllGrid"], "did you mean 'assigner'"),
        (["--detector.assigner", "NearbyGird"], "did you mean 'NearbyGrid'"),
        (["--detector.assigner.match_iou_thre", "0.1"], "did you mean 'match_iou_thres'"),
        (["--detector.backbone", "resnet19"], "did you mean 'resnet18'"),
        (["--detector", "YOLOO"], "did you mean 'YOLO'"),
        (["--detector.loss.iou_loss_type", "cious"], "did you mean 'ciou'"),
        (["--trainer.max_epoch", "3"], "did you mean 'trainer.max_epochs'"),
        (["--trainer.max_epochs", "three"], "trainer.max_epochs: expected int, got 'three'"),
        (["--optimizer.name", "adm"], "did you mean 'adam'"),
        (["--data.batchsize", "3"], "did you mean 'data.batch_size'"),
        (["--data.augment.mosaic_pp", "0.1"], "did you mean 'data.augment.mosaic_p'"),
        (["--data.policy.zero_size", "dropp"], "'drop'"),
        (["--outputt", "x"], "did you mean 'output'"),
        (["--data.image_size", "big"], "data.image_size: expected one of int"),
        (["--data.image_size", "100"], "multiples of 32"),
        (["--optimizer.base_lr", "-1"], "optimizer.base_lr: expected a number above 0"),
        (["--config", "nothing.yaml"], "no configuration file nothing.yaml"),
        (["--detector", "DenseDetector", "--detector.assigner.topk", "0"], "expected topk of 1 or more"),
        (["--detector", "DenseDetector", "--detector.backbone", "resnet5"], "did you mean resnet50"),
    ],
)
def test_a_misspelt_option_is_answered_with_the_nearest_valid_one(
    arguments, advised, shapes: Path, tmp_path, capsys
):
    code, message = failing(
        capsys, "train", "--data.root", str(shapes), "--output", str(tmp_path / "run"), *arguments
    )
    assert code == 2
    assert advised in message
    assert len(message.splitlines()) <= 3


@pytest.mark.parametrize(
    ("text", "advised"),
    [
        ("detectr: YOLO\n", "did you mean 'detector'"),
        ("detector:\n  asigner: NearbyGrid\n", "did you mean 'assigner'"),
        ("detector:\n  class_path: YOLO\n  init_args:\n    backbne: resnet18\n", "did you mean 'backbone'"),
        ("detector:\n  assigner:\n    class_path: NearbyGird\n", "did you mean 'NearbyGrid'"),
        (
            "detector:\n  assigner:\n    class_path: my.module.Grid\n",
            "cannot use my.module.Grid: No module named 'my'",
        ),
        ("trainer:\n  max_epoch: 3\n", "did you mean 'trainer.max_epochs'"),
        ("trainer:\n  precision: 64\n", "valid are: 16-mixed, 32, bf16-mixed"),
        ("seed: 1\nseed: 2\n", "line 2: the key 'seed' stands here twice"),
        ("seed: [1\n", "line 2: while parsing a flow sequence"),
        ("data: !!python/object/apply:os.system ['touch hacked']\n", "could not determine a constructor"),
        ("- a\n- b\n", "expected lines like 'seed: 1'"),
        ("download: bash x.sh\n", "there is no option 'download'"),
    ],
)
def test_a_wrong_configuration_file_is_named_with_its_fault(
    text: str, advised: str, tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text(text, encoding="utf-8")
    code, message = failing(capsys, "train", "--config", "wrong.yaml", "--data.root", "x")
    assert code == 2
    assert advised in message
    assert not Path("hacked").exists()


def test_numbers_names_and_truth_values_of_a_file_are_what_they_look_like(tmp_path: Path, capsys):
    text = "data: {root: x, class_names: [yes, no, '1']}\noptimizer: {base_lr: 1e-3}\n"
    text += "trainer: {progress: false}\n"
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tmp_path / "c.yaml"), "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["class_names"] == ["yes", "no", "1"]
    assert config["optimizer"]["base_lr"] == 0.001
    assert config["trainer"]["progress"] is False


def test_an_unknown_command_and_an_unknown_plain_option_are_answered(capsys):
    code, message = failing(capsys, "predct", "x")
    assert code == 2
    assert "did you mean 'predict'" in message
    code, message = failing(capsys, "predict", "x", "--weight", "y")
    assert code == 2
    assert "did you mean '--weights'" in message


def test_advice_lists_all_valid_words_when_none_is_near():
    assert advice("zzz", ["adam", "sgd"]) == "valid are: adam, sgd"
    assert advice("Adam", ["adam", "sgd"]) == "did you mean 'adam'?"
    assert (
        key_advice("trainer.epochs", ["trainer.max_epochs", "ema.decay"])
        == "did you mean 'trainer.max_epochs'?"
    )
