"""Pixels of files: the fast and the general way agree, large files are reduced, damaged ones are named."""

import numpy as np
import pytest
import torch
from drawn_set import drawn_set
from PIL import Image

from boxmatch.data import pictures
from boxmatch.data.images import open_image
from boxmatch.data.pictures import Pictures, read_pixels
from boxmatch.errors import DataError


def photo(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    ramp = np.add.outer(np.arange(size[1]), np.arange(size[0])) % 256
    values = np.stack([ramp, ramp[::-1], 255 - ramp], -1)
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{"quality": 90}, {"progressive": True}, {"subsampling": 0}])
def test_the_fast_decoder_gives_the_pixels_of_pillow(tmp_path, mode, options):
    photo((75, 53), mode).save(tmp_path / "a.jpg", **options)
    expected = np.asarray(open_image(tmp_path / "a.jpg"))
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.jpg").numpy(), expected)


def test_without_the_fast_decoder_the_pixels_are_the_same(tmp_path, monkeypatch):
    photo((75, 53)).save(tmp_path / "a.jpg")
    fast = read_pixels(tmp_path / "a.jpg")
    monkeypatch.setattr(pictures, "decode_jpeg", None)
    assert torch.equal(read_pixels(tmp_path / "a.jpg"), fast)


@pytest.mark.parametrize(
    "name, mode", [("a.png", "RGB"), ("a.png", "P"), ("a.bmp", "RGB"), ("a.jpg", "CMYK")]
)
def test_other_files_are_read_as_rgb(tmp_path, name, mode):
    photo((40, 30), mode).save(tmp_path / name)
    pixels = read_pixels(tmp_path / name)
    assert pixels.shape == (30, 40, 3)
    np.testing.assert_array_equal(pixels.numpy(), np.asarray(open_image(tmp_path / name)))


def test_the_exif_rotation_is_applied(tmp_path):
    image = photo((60, 40))
    exif = image.getexif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_pixels(tmp_path / "a.jpg").shape == (60, 40, 3)
    assert read_pixels(tmp_path / "a.jpg", side=20).shape == (20, 13, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("side", [10, 39, 64, 100])
def test_a_picture_longer_than_the_side_is_reduced_to_it(tmp_path, suffix, side):
    photo((160, 120)).save(tmp_path / f"a.{suffix}")
    whole = read_pixels(tmp_path / f"a.{suffix}")
    reduced = read_pixels(tmp_path / f"a.{suffix}", side)
    assert reduced.shape == (round(side * 0.75), side, 3)
    assert abs(float(reduced.float().mean()) - float(whole.float().mean())) < 4


@pytest.mark.parametrize("side", [160, 500])
def test_a_picture_that_is_short_enough_stays_as_it_is(tmp_path, side):
    photo((160, 120)).save(tmp_path / "a.jpg")
    assert torch.equal(read_pixels(tmp_path / "a.jpg", side), read_pixels(tmp_path / "a.jpg"))


@pytest.mark.parametrize("left", [0.0, 0.3, 0.9, 0.99])
def test_a_file_that_was_cut_short_is_never_a_grey_picture(tmp_path, left):
    file = tmp_path / "a.jpg"
    photo((160, 120)).save(file)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * left)])
    for side in (None, 300, 40):
        with pytest.raises(DataError, match=r"a\.jpg"):
            read_pixels(file, side)


def test_the_size_is_the_one_of_the_file_and_not_of_the_annotation(tmp_path):
    annotations = drawn_set(tmp_path, count=2)
    annotations.sizes[:] = 5
    assert Pictures(annotations, side=40).size(1) == (160, 120)


def test_a_missing_file_is_named_with_its_number(tmp_path):
    annotations = drawn_set(tmp_path, count=3)
    annotations.file(1).unlink()
    with pytest.raises(DataError, match=r"picture 1 of the data set: .*picture_1\.png"):
        Pictures(annotations, side=40).size(1)
    with pytest.raises(DataError, match=r"picture 1 of the data set: .*picture_1\.png"):
        Pictures(annotations, side=40).pixels(1)
