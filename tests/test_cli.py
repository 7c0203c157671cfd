"""Start-up, help screens and the printed configuration."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import boxmatch
from boxmatch.cli import COMMANDS, main
from boxmatch.commands.demo import OPTIONS

REPOSITORY = Path(__file__).resolve().parents[1]


def program(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "boxmatch", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )


def test_help_needs_no_heavy_import_and_fits_one_screen():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = program("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    # Processor time: the promised second must hold on a busy machine too.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert len(done.stdout.splitlines()) <= 24
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    check = (
        "import sys; sys.argv = ['boxmatch', '--help']\n"
        "import boxmatch.cli; boxmatch.cli.main()\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'jsonargparse', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    fresh = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=REPOSITORY)
    assert fresh.returncode == 0, fresh.stderr


def test_importing_the_package_is_light_and_its_names_come_on_demand():
    check = (
        "import sys, boxmatch\n"
        "assert 'torch' not in sys.modules\n"
        "from boxmatch import Targets\n"
        "assert 'torch' in sys.modules and 'lightning' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


def test_every_public_name_can_be_imported_and_others_are_refused():
    assert all(hasattr(boxmatch, name) for name in boxmatch.__all__)
    assert set(boxmatch.__all__) <= set(dir(boxmatch))
    assert set(boxmatch.__all__) == set(boxmatch._HOMES)
    with pytest.raises(AttributeError, match="nothing"):
        _ = boxmatch.nothing


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_fits_one_screen_and_ends_with_code_0(command: str, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: boxmatch " + command)
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("command", ["train", "val", "debug", "check"])
def test_every_option_of_a_help_screen_exists(command: str, capsys):
    from boxmatch.commands.parser import config_parser, option_names

    main([command, "--help"])
    named = set(re.findall(r"--([a-z_.]+)", capsys.readouterr().out))
    known = set(option_names(config_parser(command))) | {"detector.channel_sparsity"}
    own = {"output", "resume", "run", "weights", "split", "batches", "pictures", "print_config"}
    own |= {"score_threshold", "nms_iou", "max_detections", "multi_scale", "soft_vote", "explain"}
    sections = {name for name in named if name.endswith(".help")}
    assert named - known - own - sections == set()


@pytest.mark.parametrize(
    "section", ["data", "detector", "optimizer", "schedule", "ema", "trainer", "evaluation"]
)
def test_each_section_explains_its_options(section: str, capsys):
    assert main(["train", f"--{section}.help"]) == 0
    text = capsys.readouterr().out
    assert f"--{section}." in text
    assert "type:" in text


def test_a_class_explains_its_options(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "--detector.assigner.help", "AllGrid"])
    assert left.value.code == 0
    assert "match_iou_thres" in capsys.readouterr().out


def test_without_command_the_help_is_shown_and_the_code_is_2(capsys):
    assert main([]) == 2
    assert "usage: boxmatch COMMAND" in capsys.readouterr().out


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("boxmatch ")


def test_print_config_is_yaml_that_config_reads_again(tmp_path: Path, capsys):
    arguments = [
        "--data.root",
        "nowhere",
        "--detector.assigner",
        "AllGrid",
        "--detector.assigner.match_iou_thres",
        "0.1",
    ]
    with pytest.raises(SystemExit) as left:
        main(["train", *arguments, "--print_config"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    config = yaml.safe_load(text)
    assert config["detector"]["init_args"]["assigner"]["init_args"]["match_iou_thres"] == 0.1
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tmp_path / "again.yaml"), "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out) == config


def test_options_of_the_demo_are_options_of_train():
    from boxmatch.commands.parser import parse
    from boxmatch.commands.training import train_parser

    config = parse(train_parser("demo"), [*OPTIONS, "--data.root", "x"])
    assert config.detector.init_args.wh_decode == "sigmoid4"
