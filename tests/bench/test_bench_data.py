"""The benchmark of the data pipeline: rows that add up, on generated and on given pictures."""

import pytest
import torch

from boxmatch.bench.data import SOURCE, SOURCE_BYTES, bench_data, write_pictures


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"), count=3)


def test_a_row_without_and_one_with_cache(annotations):
    threads = torch.get_num_threads()
    plain, cached = bench_data(annotations, size=64, batch_size=2, batches=3, cache_mb=10)
    assert (plain.cached, cached.cached) == (False, True)
    for row in (plain, cached):
        assert (row.size, row.samples, row.source) == ((64, 64), 6, str(annotations.root))
        assert row.decode + row.geometry + row.color + row.collate == pytest.approx(1)
        assert min(row.decode, row.geometry, row.collate) > 0
        assert row.samples_per_second == pytest.approx(1000 / row.milliseconds, rel=0.1)
        assert row.best_milliseconds <= row.median_milliseconds
    assert cached.decode < 0.5 * plain.decode
    assert torch.get_num_threads() == threads


def test_generated_pictures_are_as_large_as_photographs(annotations):
    for index in range(len(annotations)):
        assert tuple(annotations.sizes[index]) == SOURCE
        assert annotations.file(index).stat().st_size == pytest.approx(SOURCE_BYTES, rel=0.2)
