"""Functions that give the same bits wherever an argument stands."""

import pytest
import torch

from boxmatch import reproducible

FUNCTIONS = {
    "sigmoid": (reproducible.sigmoid, torch.sigmoid),
    "exp": (reproducible.exp, torch.exp),
    "log": (lambda x: reproducible.log(x.abs()), lambda x: x.abs().log()),
    **{
        f"power {e}": (lambda x, e=e: reproducible.power(x.abs(), e), lambda x, e=e: x.abs() ** e)
        for e in (0, 0.5, 1, 1.5, 2, 3, 6, 0.3, 17)
    },
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_by_one_equals_all_at_once(name):
    function, plain = FUNCTIONS[name]
    values = 3 * torch.randn(4097, generator=torch.Generator().manual_seed(0))
    whole = function(values)
    assert torch.equal(torch.cat([function(part) for part in values.split(1)]), whole)
    assert torch.equal(torch.cat([function(part) for part in values.split(13)]), whole)
    torch.testing.assert_close(whole, plain(values), rtol=1e-5, atol=1e-7)
