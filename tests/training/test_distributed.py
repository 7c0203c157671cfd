"""Two processes over gloo do what one does with the joined batch; torchrun starts them on two machines."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each case found on both ranks."""
    folder = tmp_path_factory.mktemp("two")
    program = [sys.executable, str(HERE / "two_processes.py"), str(folder)]
    done = subprocess.run(program, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    cases = ("compare_gradients", "compare_dense_gradients", "train_toy", "diverge")
    return {
        name: [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1)] for name in cases
    }


def test_gradients_equal_those_of_one_process_with_the_joined_batch(found: dict[str, list[Any]]):
    assert found["compare_gradients"][0]["empty=False"] < 1e-4


def test_a_rank_without_boxes_neither_hangs_nor_changes_the_gradients(found: dict[str, list[Any]]):
    assert found["compare_gradients"][0]["empty=True"] < 1e-4


@pytest.mark.parametrize("empty", [True, False])  # three boxes on one rank, none or one on the other
@pytest.mark.parametrize("name", ["atss", "dynamic_atss", "paa", "dual_weight"])
def test_a_dense_detector_on_a_rank_without_boxes_neither_hangs_nor_leaves_weights_unused(
    found: dict[str, list[Any]], name: str, empty: bool
):
    both_ranks = found["compare_dense_gradients"]
    case = f"{name}, empty={empty}"
    assert [one[case]["without"] for one in both_ranks] == [[], []]
    assert both_ranks[0][case]["worst"] < 1e-3  # of the largest gradient; without norms rounding grows


def test_both_ranks_end_with_the_same_weights_and_numbers(found: dict[str, list[Any]]):
    first, second = found["train_toy"]
    assert first["sum"] == second["sum"]
    assert first["two"] == second["two"]
    assert first["steps"] == 4  # 11 pictures, 2 per process and step: 2 full steps in each of 2 epochs


def test_the_metric_over_ranks_is_that_of_one_process_and_counts_each_picture_once(
    found: dict[str, list[Any]],
):
    numbers = found["train_toy"][0]
    assert numbers["two"] == numbers["one"]
    assert numbers["two"]["pictures"] == 11 and numbers["two"]["boxes"] == 6
    assert 0 < numbers["two"]["map"] < 1


def test_all_ranks_stop_when_one_diverges_and_that_one_names_its_pictures(found: dict[str, list[Any]]):
    first, second = found["diverge"]
    assert first["error"] == second["error"] == "DivergedError"
    assert "rank 1, epoch 2, step 3" in second["text"] and "the loss term class and box" in second["text"]


@pytest.mark.slow
def test_torchrun_trains_and_evaluates_over_two_machines(tmp_path: Path):
    """Two launchers on the loopback device stand for two machines; the weights are those of one launcher."""

    def launch(nodes: int, output: Path) -> str:
        per_node = 2 // nodes
        rendezvous = f"--rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:{29500 + os.getpid() % 400 + nodes}"
        options = (
            f"--nnodes={nodes} --nproc-per-node={per_node} {rendezvous} --rdzv-id=test --local-addr=127.0.0.1"
        )
        command = [sys.executable, "-m", "torch.distributed.run", *options.split()]
        command += [str(HERE / "train_toy.py"), str(output)]
        started = [
            subprocess.Popen(
                command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for _ in range(nodes)
        ]
        said = "".join(process.communicate(timeout=300)[0] for process in started)
        assert [process.returncode for process in started] == [0] * nodes, said
        return said

    assert "2 processes" in launch(2, tmp_path / "a")
    launch(1, tmp_path / "b")
    numbers = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in "ab"]
    assert numbers[0] == numbers[1]
    assert numbers[0]["last"]["pictures"] == 16 and numbers[0]["map"] > 0


@pytest.mark.slow
def test_a_lost_process_is_reported_by_the_other_one(tmp_path: Path):
    options = "--nnodes=1 --nproc-per-node=2 --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:0"
    command = [sys.executable, "-m", "torch.distributed.run", *options.split()]
    command += [str(HERE / "train_toy.py"), str(tmp_path / "run"), "kill"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "another process is gone after step 3" in done.stdout + done.stderr
