"""The two budgets of pairs in work."""

import torch

from boxmatch.spatial import pieces
from boxmatch.spatial.pieces import cached_budget, in_pieces


def test_on_a_cpu_work_that_keeps_little_stays_in_the_cache(monkeypatch):
    assert cached_budget(torch.device("cpu")) == pieces.CACHED_PAIRS
    assert cached_budget(torch.device("cuda")) == pieces.PAIR_BUDGET
    monkeypatch.setattr(pieces, "PAIR_BUDGET", 7)
    assert cached_budget(torch.device("cpu")) == 7


def test_pieces_are_as_large_as_their_budget(monkeypatch):
    monkeypatch.setattr(pieces, "CACHED_PAIRS", 4)
    seen: list[slice] = []

    def part(piece: slice) -> tuple[torch.Tensor]:
        seen.append(piece)
        return (torch.arange(6)[piece],)

    for cached, expected in ((False, [(0, 6)]), (True, [(0, 2), (2, 4), (4, 6)])):
        seen.clear()
        (joined,) = in_pieces(torch.full((6,), 2), part, cached=cached)
        assert joined.tolist() == [0, 1, 2, 3, 4, 5]
        assert [(piece.start or 0, piece.stop) for piece in seen] == expected
