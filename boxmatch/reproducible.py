"""Functions whose float32 result depends on the argument alone, not on where in a tensor it stands.

torch computes exp, log and their kin with vector instructions, and the last few entries of a tensor, or of a
thread's share of it, one by one: the two differ in the last bit, and so do devices. An assigner that compares
such values would decide ties differently when a batch is cut into other pieces. In float64 they differ as
well, but after rounding to float32 what is left is equal (all but about one in 10^8). Sums, products,
divisions and square roots need none of this: IEEE 754 fixes their result.
"""

import math

from jaxtyping import Float32
from torch import Tensor


def sigmoid(values: Float32[Tensor, "*S"]) -> Float32[Tensor, "*S"]:
    """1 / (1 + exp(-x))."""
    return values.double().sigmoid_().float()


def exp(values: Float32[Tensor, "*S"]) -> Float32[Tensor, "*S"]:
    """e to the power of x."""
    return values.double().exp_().float()


def log(values: Float32[Tensor, "*S"]) -> Float32[Tensor, "*S"]:
    """Natural logarithm; -inf at 0."""
    return values.double().log_().float()


def power(values: Float32[Tensor, "*S"], exponent: float) -> Float32[Tensor, "*S"]:
    """x to the power of `exponent`, for x of 0 or more; small whole and half exponents by multiplication."""
    whole, half = divmod(exponent, 1)
    if half not in (0, 0.5) or not 0 <= whole <= 16:
        return values.double().pow_(exponent).float()
    result = values.sqrt() if half else values.new_ones(()).expand_as(values)
    square = values
    for bit in range(int(math.log2(whole)) + 1 if whole else 0):
        if int(whole) >> bit & 1:
            result = result * square
        square = square * square
    return result
