"""Queries whose answer is one block of cells per box and level: cells, inside, within."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..boxes import box_centers
from ..segments import concatenated_ranges, ragged_arange
from ..structures import Pairs
from .index import GridIndex
from .pieces import in_pieces


@dataclass(frozen=True)
class Blocks:
    """A block of cells per box and level: rows top .. bottom - 1, columns left .. right - 1; may be empty."""

    left: Int64[Tensor, "G L"]
    top: Int64[Tensor, "G L"]
    right: Int64[Tensor, "G L"]
    bottom: Int64[Tensor, "G L"]


def cells(index: GridIndex, boxes: Float[Tensor, "G 4"], reach: int) -> Pairs:
    """Priors of the cell that holds the box's centre, or is nearest to it, and of its neighbours."""
    center = box_centers(boxes)[:, None].expand(-1, len(index), -1)
    half_x, half_y = (index.step.float() / 2).unsqueeze(2).unbind(1)
    column = (_count_until(index.xs - half_x, center[..., 0]) - 1).clamp(min=0)
    row = (_count_until(index.ys - half_y, center[..., 1]) - 1).clamp(min=0)
    blocks = Blocks(
        left=(column - reach).clamp(min=0),
        top=(row - reach).clamp(min=0),
        right=torch.minimum(column + reach + 1, index.width),
        bottom=torch.minimum(row + reach + 1, index.height),
    )
    return _list_blocks(index, blocks)


def inside(index: GridIndex, boxes: Float[Tensor, "G 4"]) -> Pairs:
    """Priors whose centre lies strictly inside the box."""
    return _list_blocks(index, _blocks_between(index, boxes[:, None].expand(-1, len(index), -1)))


def count_inside(index: GridIndex, boxes: Float[Tensor, "G 4"]) -> Int64[Tensor, "G"]:
    """How many priors `inside` lists for each box."""
    return count_between(index, boxes[:, None].expand(-1, len(index), -1))


def within(index: GridIndex, boxes: Float[Tensor, "G 4"], radius: float) -> Pairs:
    """Priors whose centre lies strictly in a square of half side radius · stride around the box's centre."""
    center = box_centers(boxes)[:, None]
    half = (radius * index.stride)[:, None]
    return _list_blocks(index, _blocks_between(index, torch.cat((center - half, center + half), dim=-1)))


def between(index: GridIndex, windows: Float[Tensor, "G L 4"]) -> Pairs:
    """Priors whose centre lies strictly in a window (xyxy px) per box and level; swapped sides hold none."""
    return _list_blocks(index, _blocks_between(index, windows))


def count_between(index: GridIndex, windows: Float[Tensor, "G L 4"]) -> Int64[Tensor, "G"]:
    """How many priors `between` lists for each box."""
    blocks = _blocks_between(index, windows)
    cells = (blocks.right - blocks.left).clamp(min=0) * (blocks.bottom - blocks.top).clamp(min=0)
    return (cells * index.anchors).sum(1)


def _count_until(lines: Float[Tensor, "L W"], values: Float[Tensor, "G L"]) -> Int64[Tensor, "G L"]:
    """How many of a level's lines are at or before each value."""
    return torch.searchsorted(lines, values.T.contiguous(), right=True).T


def _count_before(lines: Float[Tensor, "L W"], values: Float[Tensor, "G L"]) -> Int64[Tensor, "G L"]:
    """How many of a level's lines are before each value."""
    return torch.searchsorted(lines, values.T.contiguous()).T


def _blocks_between(index: GridIndex, windows: Float[Tensor, "G L 4"]) -> Blocks:
    """Cells whose centre lies strictly inside a window per box and level."""
    left, top, right, bottom = windows.unbind(-1)
    return Blocks(
        left=_count_until(index.xs, left),
        top=_count_until(index.ys, top),
        right=_count_before(index.xs, right),
        bottom=_count_before(index.ys, bottom),
    )


def _list_blocks(index: GridIndex, blocks: Blocks) -> Pairs:
    """All priors of all blocks; a row of a block is one run of consecutive priors."""
    length = (blocks.right - blocks.left).clamp(min=0) * index.anchors
    rows = (blocks.bottom - blocks.top).clamp(min=0) * (length > 0)

    pairs = (rows * length).sum(1)

    def part(piece: slice) -> tuple[Tensor, Tensor]:
        block, row = ragged_arange(rows[piece].flatten(), blocks.top[piece].flatten())
        level = block % len(index)
        cell = row * index.width.index_select(0, level) + _look_up(blocks.left[piece], block)
        first = index.start.index_select(0, level) + cell * index.anchors.index_select(0, level)
        prior = concatenated_ranges(first, _look_up(length[piece], block))
        return torch.repeat_interleave(pairs[piece], output_size=len(prior)) + (piece.start or 0), prior

    return Pairs(*in_pieces(pairs, part))


def _look_up(table: Int64[Tensor, "G L"], block: Int64[Tensor, "N"]) -> Int64[Tensor, "N"]:
    return table.flatten().index_select(0, block)
