"""What a resumed run must have in common with the one that was saved."""

from pathlib import Path

import pytest
from toy import ToyData, ToyDetector

from boxmatch.errors import CheckpointError
from boxmatch.training import record
from boxmatch.training.options import OptimizerOptions, TrainerOptions
from boxmatch.training.record import check_record, differences, fingerprint, plain, run_record


def made(**data: object) -> dict[str, object]:
    settings = {"optimizer": OptimizerOptions(), "trainer": TrainerOptions(), "seed": 1}
    return run_record(ToyDetector(), ToyData(**data), settings)  # type: ignore[arg-type]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(record, "say", lines.append)
    return lines


def test_the_same_settings_say_nothing(said: list[str]):
    check_record(made(), made())
    assert said == []


def test_other_boxes_are_refused():
    with pytest.raises(
        CheckpointError, match=r"the training pictures or boxes differ.*16 pictures, 15 boxes"
    ):
        check_record(made(empty_from=15), made())


def test_other_classes_are_refused():
    with pytest.raises(CheckpointError, match="the classes differ"):
        check_record({"class_names": ["a", "b"]}, {"class_names": ["b", "a"]})


def test_another_network_is_refused():
    old = made()
    old["detector"] = {"class": "Other", "weights": 1}
    with pytest.raises(CheckpointError, match="the network differ"):
        check_record(old, made())


def test_a_checkpoint_without_a_record_is_refused():
    with pytest.raises(CheckpointError, match="not written by boxmatch train"):
        check_record(None, made())


def test_changed_settings_are_listed_and_harmless_ones_are_not(said: list[str]):
    new = made()
    new["optimizer"] = {**plain(OptimizerOptions()), "base_lr": 0.02}
    new["trainer"] = {**plain(TrainerOptions()), "progress": False}
    check_record(made(), new)
    assert said == ["changed since the run was saved: optimizer.base_lr: 0.01 → 0.02"]


def test_differences_name_what_one_side_lacks():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 1, "d": 3}}) == [("a.d", None, 3), ("c", 2, None)]


def test_the_fingerprint_ignores_where_the_folder_lies():
    from dataclasses import replace

    annotations = ToyData().annotations("train")
    assert fingerprint(annotations) == fingerprint(replace(annotations, root=Path("elsewhere")))
    assert fingerprint(annotations) != fingerprint(replace(annotations, class_names=("x", "y")))


def test_values_without_a_plain_form_are_recorded_by_their_text():
    assert plain({"path": Path("a"), "sizes": (1, 2)}) == {"path": repr(Path("a")), "sizes": [1, 2]}
