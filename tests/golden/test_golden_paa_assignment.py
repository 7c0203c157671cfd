"""PAA's candidates, costs, mixtures and positives against the original."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from dense_case import DenseCase, system_folder
from torch import Tensor
from torch.testing import assert_close

from boxmatch.assign import PAA
from boxmatch.assign.mixture import Mixture, fit_mixture
from boxmatch.boxes import pair_iou
from boxmatch.structures import REASONS, Assignment, Pairs

FILES = "case*.npz"
MOST_CANDIDATES = 45
UNMATCHED_COST = 1e8


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run per case file; a folder without any fails."""
    folder = system_folder(metafunc.config, "paa")
    absent = pytest.mark.skip(f"no folder {folder}; say where with --golden-dir")
    marks = [] if folder.is_dir() else [absent]
    files = sorted(folder.glob(FILES)) or [folder / FILES]
    metafunc.parametrize(
        "paa_file", [pytest.param(file, id=file.stem, marks=marks) for file in files], scope="module"
    )


@dataclass(frozen=True, eq=False)
class Run:
    """A case, what the assigner made of it, and the fits of the boxes that the file has fits for."""

    case: DenseCase
    assignment: Assignment
    gt: Tensor  # row in the targets of each fit
    cost: Tensor  # (fits, MOST_CANDIDATES), ascending
    valid: Tensor
    prior: Tensor  # of each cost
    mixture: Mixture

    def reason(self, *names: str) -> Tensor:
        """Which pairs of the explanation have one of the reasons."""
        reason = self.assignment.explanation.reason
        return torch.isin(reason, torch.tensor([REASONS.index(name) for name in names]))

    def dense(self, pairs: Pairs, values: Tensor, rest: float) -> Tensor:
        """Values of pairs in a table (B, P)."""
        image = self.case.targets.image[pairs.gt]
        table = torch.full((self.case.targets.batch_size, len(self.case.priors)), rest, dtype=values.dtype)
        table[image, pairs.prior] = values
        return table


@pytest.fixture(scope="module")
def run(paa_file: Path) -> Run:
    case = DenseCase.read(paa_file)
    assignment = PAA(inclusive_pixels=True)(case.priors, case.targets, case.predictions(), explain=True)
    explanation = assignment.explanation
    pooled = (explanation.reason == 0) | (explanation.reason == REASONS.index("below_threshold"))
    gt = case.first_row[case.array("gmm_image")] + case.array("gmm_gt")
    cost = torch.full((len(gt), MOST_CANDIDATES), torch.inf)
    prior = torch.full((len(gt), MOST_CANDIDATES), -1)
    for fit, row in enumerate(gt.tolist()):
        mine = pooled & (explanation.pairs.gt == row)
        order = (-explanation.score[mine]).argsort(stable=True)
        cost[fit, : len(order)] = -explanation.score[mine][order]
        prior[fit, : len(order)] = explanation.pairs.prior[mine][order]
    valid = prior >= 0
    return Run(case, assignment, gt, cost, valid, prior, fit_mixture(cost, valid))


def test_priors_are_matched_to_the_boxes_of_the_original(run):
    pairs = run.assignment.explanation.pairs.select(~run.reason("lost_to_gt"))
    assert torch.equal(run.dense(pairs, pairs.gt, -1), run.case.gt_index("iou_based_matched"))
    labels = run.dense(pairs, run.case.targets.labels[pairs.gt], -1)
    assert torch.equal(labels, run.case.class_index("iou_based_labels"))


def test_costs_equal_the_original(run):
    matched = ~run.reason("lost_to_gt")
    explanation = run.assignment.explanation
    found = run.dense(explanation.pairs.select(matched), -explanation.score[matched], UNMATCHED_COST)
    assert_close(found, run.case.array("combined_loss"), rtol=1e-5, atol=0)


def test_every_box_has_the_candidates_of_the_original(run):
    counts = torch.bincount(run.assignment.candidates.gt, minlength=len(run.case.targets))
    assert torch.equal(counts, run.case.array("gt_num_candidates"))
    assert torch.equal(run.valid.sum(1), run.case.array("gmm_n"))
    assert torch.equal(run.prior[run.valid], run.case.array("gmm_anchor").long())
    assert_close(run.cost[run.valid], run.case.array("gmm_loss"), rtol=1e-5, atol=0)


def test_every_fit_ends_where_that_of_the_original_does(run):
    mixture, case = run.mixture, run.case
    assert torch.equal(
        torch.stack((mixture.iterations, mixture.converged.long()), 1), case.array("gmm_iters")
    )
    for name in ("weights", "means", "variances"):
        expected = case.array("gmm_vars" if name == "variances" else f"gmm_{name}")
        assert_close(getattr(mixture, name), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(mixture.component[run.valid], case.array("gmm_component").long())
    assert_close(mixture.log_density[run.valid], case.array("gmm_logprob"), rtol=1e-4, atol=1e-4)


def test_labels_and_positives_equal_the_original(run):
    case, assignment = run.case, run.assignment
    owner = assignment.gt_index()
    labels = torch.where(owner < 0, -1, case.targets.labels[owner.clamp(min=0)])
    assert torch.equal(labels, case.class_index())
    positives = torch.bincount(assignment.pairs.gt, minlength=len(case.targets))
    assert torch.equal(positives[run.gt], case.array("gmm_num_pos"))
    assert torch.equal((owner.flatten() >= 0).nonzero().squeeze(1), case.array("pos_inds"))
    assert len(assignment.pairs) == int(case.array("num_pos_avg_per_gpu"))
    assert not assignment.ignored.any()


def test_targets_of_the_positives_equal_the_original(run):
    case = run.case
    image, prior = case.positives
    gts = case.targets.boxes[run.assignment.gt_index()[image, prior]]
    assert_close(
        case.coder.encode_xyxy(gts, case.priors, prior),
        case.array("reg_targets_pos"),
        rtol=1e-5,
        atol=1e-5,
    )
    quality = pair_iou(case.predictions().boxes[image, prior], gts)
    assert_close(quality, case.array("quality_targets_pos"), rtol=1e-5, atol=1e-5)
    assert quality.sum().item() == pytest.approx(case.array("sum_quality_targets").item(), rel=1e-5)


def test_without_the_pixel_convention_of_the_original_costs_differ(run):
    if not len(run.assignment.pairs):
        pytest.skip("a file without boxes")
    plain = PAA()(run.case.priors, run.case.targets, run.case.predictions(), explain=True)
    difference = plain.explanation.score - run.assignment.explanation.score
    assert difference.abs().max() > 1e-4
