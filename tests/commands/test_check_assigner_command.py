"""`boxmatch check-assigner`: verdicts, and answers to what is misspelt."""

from pathlib import Path

import pytest
from typed_commands import failing

from boxmatch.cli import main
from boxmatch.conformance import PROPERTIES

MINE = '''
from boxmatch.assign import NearbyGrid
from boxmatch.conformance import Subject

class Mine(NearbyGrid):
    """Contested priors are drawn."""

    def __init__(self, *, threshold: float = 0.1, draw: bool = False) -> None:
        super().__init__(match_iou_thres=threshold, filter_by_max_iou=not draw)

class Broken(Mine):
    def assign(self, priors, targets, predictions, story):
        return super().assign(priors, targets.select(slice(0, 2)), predictions, story)

def make(threshold: float):
    return Mine(threshold=threshold)

READY = Mine()
SUBJECT = Subject(Broken, exceptions={name: "it looks at two boxes" for name in ("order_of_boxes", "form")})
NUMBER = 3
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of somebody's."""
    (tmp_path / "somebodys_rule.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "wrong_rule.py").write_text("1 / 0\n", encoding="utf-8")
    (tmp_path / "needy_rule.py").write_text("import no_such_thing\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["somebodys_rule:Mine"],
        ["somebodys_rule:Mine", "--args", '{"draw": true}'],
        ["somebodys_rule:make", "--args.threshold", "0.2"],
        ["somebodys_rule:READY"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_a_proper_assigner_passes_with_one_line_per_property(arguments: list[str], folder: Path, capsys):
    assert main(["check-assigner", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{arguments[0]} on two levels of three anchors"
    assert [line[16:].split()[0] for line in lines[1:-1]] == list(PROPERTIES)
    drawn = "--args" in arguments
    assert any("turned_picture" in line and line.startswith("not applicable") for line in lines) == drawn
    assert " 0 fail, " in lines[-1]


def test_a_failing_property_says_what_was_expected_and_the_code_is_1(folder: Path, capsys):
    assert main(["check-assigner", "somebodys_rule:Broken"]) == 1
    lines = capsys.readouterr().out.splitlines()
    place = next(row for row, line in enumerate(lines) if line.startswith("FAIL            order_of_boxes"))
    assert "boxes backwards: prior" in lines[place + 1]
    assert "expected" in lines[place + 1]


def test_exceptions_of_a_subject_are_shown(folder: Path, capsys):
    main(["check-assigner", "somebodys_rule:SUBJECT"])
    lines = capsys.readouterr().out.splitlines()
    assert "not applicable  order_of_boxes          it looks at two boxes" in lines


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["boxmatch.asign:ATSS"], 2, "there is no module 'asign' in boxmatch; did you mean 'assign'"),
        (["somebody_rule:Mine"], 2, "did you mean 'somebodys_rule'"),
        (["boxmatch.assign:ATTS"], 2, "boxmatch.assign has no 'ATTS'; did you mean 'ATSS'"),
        (["boxmatch.assign.ATSS"], 2, "did you mean 'boxmatch.assign:ATSS'?"),
        (["ATSS"], 2, "did you mean 'boxmatch.assign:ATSS'?"),
        (["somebodys_rule:Mine", "--args.thresold", "1"], 2, "did you mean 'args.threshold'"),
        (["somebodys_rule:Mine", "--args.threshold", "high"], 2, "expected float, got 'high'"),
        (
            ["somebodys_rule:Mine", "--args.threshold", "7"],
            2,
            "Mine cannot be made: expected match_iou_thres",
        ),
        (["somebodys_rule:make"], 2, "--args.threshold must be given"),
        (["somebodys_rule:READY", "--args.threshold", "1"], 2, "is made already"),
        (["somebodys_rule:NUMBER"], 2, "expected a class, a function or an assigner, got 3"),
        (["boxmatch.assign:Assigner"], 2, "Assigner cannot be made: Can't instantiate abstract class"),
        (["--args.threshold", "1"], 2, "expected PACKAGE.MODULE:CLASS first"),
        (["wrong_rule:Mine"], 2, "cannot import wrong_rule: ZeroDivisionError"),
        (["needy_rule:Mine"], 6, "needy_rule imports no_such_thing, which is not installed"),
    ],
)
def test_what_cannot_be_checked_is_answered(arguments, code: int, said: str, folder: Path, capsys):
    found, message = failing(capsys, "check-assigner", *arguments)
    assert (found, said in message) == (code, True), message
