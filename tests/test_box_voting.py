"""Merging detections of several scales: literal groups, and the greedy rule one box at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boxmatch.box_voting import merge_by_voting
from boxmatch.structures import Detections


def detections(rows: list[tuple[list[float], float, int]]) -> Detections:
    """Detections from (box, score, label)."""
    return Detections(
        torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row[1] for row in rows], dtype=torch.float32),
        torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )


def random_detections(seed: int, count: int) -> Detections:
    """Boxes on whole pixels, so that equal overlaps and equal scores are common."""
    random = torch.Generator().manual_seed(seed)
    low = torch.randint(0, 6, (count, 2), generator=random)
    size = torch.randint(0, 12, (count, 2), generator=random)
    scores = torch.randint(1, 9, (count,), generator=random) / 8
    return Detections(
        torch.cat((low, low + size), 1).float(), scores, torch.randint(0, 3, (count,), generator=random)
    )


def iou_of(a: Tensor, b: Tensor) -> float:
    width = max(0.0, min(float(a[2]), float(b[2])) - max(float(a[0]), float(b[0])))
    height = max(0.0, min(float(a[3]), float(b[3])) - max(float(a[1]), float(b[1])))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def one_at_a_time(
    found: Detections, min_iou: float, soft_min_score: float | None
) -> list[tuple[list[float], float, int]]:
    """The rule as it is told, class by class and group by group."""
    merged = []
    for label in found.labels.unique().tolist():
        rest = [row for row in range(len(found)) if int(found.labels[row]) == label]
        rest.sort(key=lambda row: (-float(found.scores[row]), row))
        boxes, scores = found.boxes.double(), found.scores.double()
        while rest:
            best = rest[0]
            group = [best] + [row for row in rest[1:] if iou_of(boxes[best], boxes[row]) >= min_iou]
            rest = [row for row in rest if row not in group]
            mean = (boxes[group] * scores[group, None]).sum(0) / scores[group].sum()
            merged.append((mean.tolist(), float(scores[best]), label))
            for row in group[1:]:
                score = float(scores[row]) * (1 - iou_of(boxes[best], boxes[row]))
                if soft_min_score is not None and score >= soft_min_score:
                    merged.append((boxes[row].tolist(), score, label))
    return merged


def test_a_group_becomes_its_weighted_mean_with_the_highest_score():
    found = merge_by_voting(
        detections([([0, 0, 10, 12], 0.2, 0), ([0, 0, 10, 10], 0.6, 0), ([50, 0, 60, 10], 0.4, 0)])
    )
    assert found.scores.tolist() == pytest.approx([0.6, 0.4])
    assert found.boxes.tolist() == [pytest.approx([0, 0, 10, 10.5]), [50, 0, 60, 10]]


def test_boxes_of_other_classes_do_not_meet_and_the_only_one_of_its_class_stays():
    given_ = detections([([0, 0, 10, 10], 0.9, 0), ([0, 0, 10, 11], 0.8, 1)])
    found = merge_by_voting(given_, soft_min_score=0.05)
    assert torch.equal(found.boxes, given_.boxes)
    assert torch.equal(found.scores, given_.scores)


def test_soft_voting_also_gives_the_members_with_a_lower_score():
    # IoU 0.8 with the best: 0.5 · 0.2 = 0.1 is enough for 0.05, 0.2 · 0.2 = 0.04 is not.
    rows = [([0, 0, 10, 10], 0.9, 0), ([0, 0, 10, 8], 0.5, 0), ([0, 0, 8, 10], 0.2, 0)]
    found = merge_by_voting(detections(rows), soft_min_score=0.05)
    assert found.scores.tolist() == pytest.approx([0.9, 0.1])
    assert found.boxes[1].tolist() == [0, 0, 10, 8]


def test_a_box_whose_neighbour_was_taken_by_a_better_one_leads_its_own_group():
    # Second overlaps first (0.7) and third (0.7); third overlaps first too little.
    rows = [([0, 0, 10, 10], 0.9, 0), ([0, 0, 10, 7], 0.8, 0), ([0, 0, 10, 4.9], 0.7, 0)]
    found = merge_by_voting(detections(rows))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])


def test_nothing_in_gives_nothing_out():
    assert len(merge_by_voting(detections([]), soft_min_score=0.05)) == 0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    count=st.integers(0, 40),
    min_iou=st.sampled_from([0.5, 0.66, 1.0]),
    soft_min_score=st.sampled_from([None, 0.05, 0.3]),
)
def test_groups_equal_those_of_one_box_at_a_time(
    seed: int, count: int, min_iou: float, soft_min_score: float | None
):
    given_ = random_detections(seed, count)
    found = merge_by_voting(given_, min_iou=min_iou, soft_min_score=soft_min_score)
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    ours, theirs = (
        sorted([label, round(score, 4), *(round(v, 3) for v in box)] for box, score, label in listed)
        for listed in (rows, one_at_a_time(given_, min_iou, soft_min_score))
    )
    assert len(ours) == len(theirs)
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(expected, abs=2e-3)
