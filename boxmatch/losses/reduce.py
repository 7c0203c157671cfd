"""Normalisers over all ranks of a distributed run."""

import torch
from jaxtyping import Float
from torch import Tensor


def rank_count() -> int:
    """Number of ranks; 1 where nothing is distributed."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def mean_over_ranks(counts: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Mean of each count over all ranks; the counts themselves where nothing is distributed.

    DistributedDataParallel averages gradients. A local sum divided by the mean count therefore gives, after
    averaging, the gradient of the sum over all ranks divided by the total count: that of one process with the
    joined batch.

    Every rank must call this equally often with equally many counts, whatever they are: one rank without
    boxes passes zeros. Call it once per step, with everything that needs it in one vector.
    """
    ranks = rank_count()
    if ranks == 1:
        return counts
    total = counts.detach().clone()
    torch.distributed.all_reduce(total)
    return total / ranks
