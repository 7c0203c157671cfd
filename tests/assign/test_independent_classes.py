"""The outputs of a softmax are told from logits of sigmoids, and nothing else is."""

import pytest
import torch

from boxmatch.assign.independent_classes import refuse_softmax


def drawn(classes: int, deviation: float = 0.3, mean: float = -4.0, priors: int = 500) -> torch.Tensor:
    return torch.randn((2, priors, classes), generator=torch.Generator().manual_seed(0)) * deviation + mean


@pytest.mark.parametrize("classes", [2, 20, 81])
@pytest.mark.parametrize("deviation", [0.3, 30.0])  # untrained, and so sure that probabilities become 0
def test_outputs_of_a_softmax_are_refused_by_name(classes: int, deviation: float):
    numbers = drawn(classes, deviation)
    with pytest.raises(ValueError, match=rf"Mine: .*each of the {classes} classes, got probabilities"):
        refuse_softmax(numbers.softmax(2), "Mine")
    with pytest.raises(ValueError, match=r"got logarithms of probabilities that sum to 1, .*softmax"):
        refuse_softmax(numbers.log_softmax(2), "Mine")


@pytest.mark.parametrize("classes", [1, 2, 20, 49, 80])
@pytest.mark.parametrize("mean", [-3.8918203, 0.0])  # the initial bias: 49 of its exponentials sum to 1
@pytest.mark.parametrize("deviation", [0.0, 0.01, 0.3, 3.0])
def test_logits_of_sigmoids_pass(classes: int, mean: float, deviation: float):
    refuse_softmax(drawn(classes, deviation, mean), "Mine")


def test_probabilities_of_sigmoids_and_constants_pass():
    refuse_softmax(drawn(20).sigmoid(), "Mine")
    refuse_softmax(torch.full((1, 8, 2), 0.5), "Mine")
    refuse_softmax(torch.zeros((2, 0, 3)), "Mine")


def test_the_outputs_of_a_single_class_are_no_softmax():
    refuse_softmax(torch.ones((1, 9, 1)), "Mine")
