"""The picture cache: its limit, its sharing, and copies of it."""

import multiprocessing
import pickle

import pytest
import torch

from boxmatch.data.cache import ImageCache

PICTURE = torch.randint(0, 255, (100, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_pixels_come_back_as_they_went_in():
    cache = ImageCache(1, 3)
    assert cache.get(1) is None
    assert cache.put(1, PICTURE)
    assert torch.equal(cache.get(1), PICTURE)
    assert cache.get(0) is None and cache.get(2) is None
    assert (len(cache), cache.used) == (1, PICTURE.numel())


def test_nothing_is_taken_in_beyond_the_limit():
    cache = ImageCache(0.1, 10)  # 104 857 bytes: two pictures of 38 400
    assert [cache.put(index, PICTURE) for index in range(4)] == [True, True, False, False]
    assert len(cache) == 2 and cache.used <= 0.1 * 2**20
    assert cache.put(5, PICTURE[:10])  # a smaller one still fits


def test_a_forked_process_fills_the_same_cache():
    cache = ImageCache(1, 3)
    process = multiprocessing.get_context("fork").Process(target=cache.put, args=(2, PICTURE))
    process.start()
    process.join()
    assert torch.equal(cache.get(2), PICTURE)


def test_a_pickled_copy_is_an_empty_cache_of_its_own():
    cache = ImageCache(1, 3)
    cache.put(0, PICTURE)
    copy = pickle.loads(pickle.dumps(cache))
    assert len(copy) == 0
    assert copy.put(1, PICTURE)
    assert cache.get(1) is None


@pytest.mark.parametrize("limit", [0, -1])
def test_a_cache_without_room_is_refused(limit):
    with pytest.raises(ValueError, match="more than 0 MB"):
        ImageCache(limit, 3)


def test_more_memory_than_there_is_is_refused():
    with pytest.raises(ValueError, match="lower cache_mb"):
        ImageCache(2.0**40, 3)
