"""Picture files: the size from the header, and the one way in which boxmatch decodes them.

EXIF rule: the orientation tag is applied, so a picture has the pixels that a viewer shows, and boxes count
in that frame.
"""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from boxmatch.errors import DataError

PIXEL_LIMIT = 100_000_000  # 100 Mpx: 300 MB once decoded; larger than any camera picture of a detection set
# Formats without programs or outside references in them: Pillow would start Ghostscript for an EPS file.
# An MPO file (several JPEGs in one) is opened as JPEG; Pillow knows no format of that name to look for.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".mpo"}
)
TRANSPOSE = {  # EXIF 2.32, tag 0x0112: how the stored pixels must be turned to be seen upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(path: str | Path, limit: int = PIXEL_LIMIT, *, side: int | None = None) -> Image.Image:
    """A picture as upright RGB; grey, palette, CMYK and 16-bit files are converted, transparency is left out.

    Args:
        limit: pixels allowed, looked up in the header before anything is decoded. Pillow's own limit of 179
            Mpx stays.
        side: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, so long as its longer side keeps this
            many pixels.

    Raises:
        DataError: the file is missing, no picture, damaged, cut short, too large or of floating point; the
            text names it.
    """
    with _open_header(path, limit) as image:
        orientation = _orientation(image)
        try:
            if side is not None and side < max(image.size):
                width, height = (max(1, length * side // max(image.size)) for length in image.size)
                image.draft(None, (width, height))
            image.load()
            image = _to_rgb(image)
        except Exception as error:  # decoders let any exception of theirs through
            raise DataError(
                f"{path}: cannot decode the picture ({_first_line(error)}); replace or remove it"
            ) from error
    return image.transpose(TRANSPOSE[orientation]) if orientation in TRANSPOSE else image


def read_size(path: str | Path, limit: int = PIXEL_LIMIT) -> tuple[int, int, bool]:
    """Width and height after the EXIF rotation, and whether that rotation swapped them; reads the header
    only.

    Raises:
        DataError: as `open_image`, as far as the header tells.
    """
    with _open_header(path, limit) as image:
        width, height = image.size
        swapped = _orientation(image) in (5, 6, 7, 8)
    return (height, width, True) if swapped else (width, height, False)


def oriented_size(path: str | Path, limit: int = PIXEL_LIMIT) -> tuple[int, int]:
    """Width and height of a picture as it is seen, after the EXIF rotation; reads the header only.

    Raises:
        DataError: as `open_image`, as far as the header tells.
    """
    return read_size(path, limit)[:2]


def is_plain_jpeg(path: str | Path, limit: int = PIXEL_LIMIT) -> bool:
    """Whether every JPEG decoder gives the pixels of `open_image`: grey or RGB, upright; reads the header
    only.

    Raises:
        DataError: as `open_image`, as far as the header tells.
    """
    with _open_header(path, limit) as image:
        return image.format == "JPEG" and image.mode in ("L", "RGB") and _orientation(image) == 1


class TooLargeError(DataError):
    """A picture with more pixels than the limit."""


def _open_header(path: str | Path, limit: int) -> Image.Image:
    try:
        image = Image.open(path, formats=FORMATS)
    except FileNotFoundError as error:
        raise DataError(f"{path}: the picture does not exist") from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{path}: {_first_line(error)}; scale the picture down") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path}: not a picture in a known format ({', '.join(FORMATS)}); replace or remove it"
        ) from error
    except Exception as error:  # header parsers let any exception of theirs through
        raise DataError(
            f"{path}: not a picture that can be read ({_first_line(error)}); replace or remove it"
        ) from error
    width, height = image.size
    if width * height > limit:
        image.close()
        raise TooLargeError(
            f"{path}: {width}x{height} exceeds the limit of {limit:,} pixels; scale it down or raise it"
        )
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) when there is none or it is damaged; to be asked before loading."""
    # Pillow turns TIFF itself. Asking a PNG that has no EXIF in its header would decode it.
    if image.format == "TIFF" or "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block says nothing; the pixels are still good
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError("floating point pixels have no agreed range")
    if image.mode.startswith("I"):  # 16-bit grey; convert("RGB") would cut at 255 instead of scaling
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA"):  # by way of RGBA: transparent palettes are not converted well in one step
        image = image.convert("RGBA")
    return image.convert("RGB")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
