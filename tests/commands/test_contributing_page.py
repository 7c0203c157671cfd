"""The worked example of docs/contributing_an_assigner.md works, and is as short as it says."""

import re
from pathlib import Path

from boxmatch.cli import main
from boxmatch.conformance import PROPERTIES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "contributing_an_assigner.md"


def test_the_worked_example_passes_the_check_with_the_command_of_the_page(tmp_path, monkeypatch, capsys):
    text = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    class_lines = code[code.index("class ") :].strip().splitlines()
    assert len(class_lines) <= 30
    (tmp_path / "inner_half.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (command,) = re.findall(r"^boxmatch (check-assigner .*)$", text, re.MULTILINE)
    assert main(command.split()) == 0
    shown = capsys.readouterr().out
    assert "FAIL" not in shown
    assert "pass            explanation" in shown


def test_the_page_names_properties_that_exist():
    rows = re.findall(r"^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named <= set(PROPERTIES)
    assert len(named) > 8
