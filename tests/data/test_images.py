"""Pictures come out upright and RGB, or with an error that names the file."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from boxmatch.data.images import TooLargeError, open_image, oriented_size, read_size
from boxmatch.errors import DataError

RED, GREEN = (220, 20, 20), (20, 200, 20)


def two_colors() -> Image.Image:
    """48 x 32, red above green."""
    image = Image.new("RGB", (48, 32), GREEN)
    image.paste(RED, (0, 0, 48, 16))
    return image


def png_header(width: int, height: int) -> bytes:
    """A PNG of this size with hardly any pixels in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def save_turned(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    two_colors().save(path, exif=exif, quality=95)


def test_rgb_pixels_stay_what_they_are(tmp_path):
    two_colors().save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), np.asarray(two_colors()))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", "png"),
        ("L", "jpg"),
        ("1", "png"),
        ("P", "png"),
        ("P", "gif"),
        ("LA", "png"),
        ("RGBA", "webp"),
        ("CMYK", "jpg"),
        ("CMYK", "tif"),
    ],
)
def test_other_modes_become_rgb_of_the_same_size(tmp_path, mode, suffix):
    two_colors().convert(mode).save(tmp_path / f"a.{suffix}")
    image = open_image(tmp_path / f"a.{suffix}")
    assert (image.mode, image.size) == ("RGB", (48, 32))


def test_a_palette_with_transparency_keeps_its_colors(tmp_path):
    two_colors().quantize(2).save(tmp_path / "a.png", transparency=b"\x80\xff")
    assert np.abs(np.asarray(open_image(tmp_path / "a.png")).astype(int) - np.asarray(two_colors())).max() < 8


def test_cmyk_colors_come_out_right(tmp_path):
    two_colors().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    pixels = np.asarray(open_image(tmp_path / "a.jpg")).astype(int)
    assert np.abs(pixels[4, 4] - RED).max() < 25
    assert np.abs(pixels[28, 4] - GREEN).max() < 25


def test_16_bit_grey_is_scaled_and_not_cut(tmp_path):
    ramp = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    assert np.asarray(open_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floating_point_pixels_are_refused_by_name(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(DataError, match=r"depth\.tif.*floating point"):
        open_image(tmp_path / "depth.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_every_exif_orientation_is_applied(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    save_turned(path, orientation)
    image = open_image(path)
    assert image.size == oriented_size(path) == ((48, 32) if orientation < 5 else (32, 48))
    pixels = np.asarray(image).astype(int)
    height, width = pixels.shape[:2]
    # Where the stored upper edge (red) is seen: EXIF 2.32, table of orientations.
    red = {1: "top", 2: "top", 3: "bottom", 4: "bottom", 5: "left", 6: "right", 7: "right", 8: "left"}[
        orientation
    ]
    row, column = {
        "top": (2, width // 2),
        "bottom": (-3, width // 2),
        "left": (height // 2, 2),
        "right": (height // 2, -3),
    }[red]
    assert np.abs(pixels[row, column] - RED).max() < 40


def test_mirrored_orientations_differ_from_turned_ones(tmp_path):
    image = two_colors()
    image.putpixel((0, 0), (0, 0, 255))
    seen = {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        image.save(tmp_path / "a.png", exif=exif)
        pixels = np.asarray(open_image(tmp_path / "a.png"))
        seen[orientation] = tuple(np.argwhere(pixels[..., 2] == 255)[0].tolist())
    assert seen == {
        1: (0, 0),
        2: (0, 47),
        3: (31, 47),
        4: (31, 0),
        5: (0, 0),
        6: (0, 31),
        7: (47, 31),
        8: (47, 0),
    }


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_is_no_reason_to_refuse(tmp_path):
    two_colors().save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xffgarbage")
    assert open_image(tmp_path / "a.jpg").size == (48, 32)


def test_the_size_comes_from_the_header_even_when_the_pixels_are_cut_off(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=95)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    assert read_size(tmp_path / "a.jpg") == (48, 32, False)
    with pytest.raises(DataError, match=r"a\.jpg: cannot decode"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"not a picture",
        b"\0" * 4096,
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ],
)
def test_a_file_that_is_no_picture_is_refused_by_name(tmp_path, content):
    (tmp_path / "wrong.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"wrong\.jpg: not a picture in a known format \(JPEG, PNG"):
        open_image(tmp_path / "wrong.jpg")


def test_a_missing_picture_and_a_folder_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"none\.jpg: the picture does not exist"):
        open_image(tmp_path / "none.jpg")
    with pytest.raises(DataError):
        open_image(tmp_path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(12_000, 9_000), (20_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_an_image_bomb_is_refused_from_its_header(tmp_path, size):
    (tmp_path / "bomb.png").write_bytes(png_header(*size))
    for read in (open_image, oriented_size):
        with pytest.raises(TooLargeError, match=r"bomb\.png"):
            read(tmp_path / "bomb.png")


def test_the_limit_counts_pixels_and_is_inclusive(tmp_path):
    two_colors().save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png", limit=48 * 32).size == (48, 32)
    with pytest.raises(TooLargeError, match="1,535"):
        open_image(tmp_path / "a.png", limit=48 * 32 - 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tif"])
def test_mutated_pictures_give_a_picture_or_our_error(tmp_path, suffix):
    two_colors().save(tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        mutated = bytearray(data[: random.integers(1, len(data) + 1)])
        for position in random.integers(0, len(mutated), 3):
            mutated[position] = random.integers(256)
        (tmp_path / "m").write_bytes(mutated)
        try:
            assert open_image(tmp_path / "m", limit=10**6).mode == "RGB"
        except DataError as error:
            assert str(tmp_path) in str(error)
