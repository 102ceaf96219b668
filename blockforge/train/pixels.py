"""One image, read as it is meant: upright, and eight bits a channel. Every source reads through here.

- EXIF says which side is up; the picture is turned that way.
- Grey of 16 bits goes from 0 to 65535 (or as far as the file says), floats from 0 to 1. What has no agreed range, such
  as whole numbers of 32 bits, floats beyond 0..1 or NaN, is refused.
- Palettes become colours, CMYK, YCbCr, HSV and LAB become RGB. Colour profiles are not applied.
- Alpha is kept here; `with_channels` lays what is transparent over white where the network takes no alpha.
- Of several frames or pages the first is the image.
"""

from __future__ import annotations

import functools
import os
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blockforge.errors import DataError

_FIRST_OF_16 = ("PNG", "PPM")
"""Formats whose whole numbers of mode `I` are of 16 bits."""
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _FORMAT = 258, 262, 274, 277, 339
"""Tags of TIFF; EXIF has the third one too."""
_WHITE_IS_ZERO, _SIGNED = 0, 2
_UNREAD = "channels"
"""Under which an image notes that its file has more channels than Pillow gave."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_image(path: Path) -> Image.Image:
    """The image of a file, in mode L, LA, RGB, RGBA or RGBX.

    Raises: DataError if the file is none, is broken, is too large to be one, or does not say what it means.
    """
    if reason := not_a_file(path):
        raise DataError(f"{path} is {reason}\n  hint: remove or replace it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow: what matters is raised
            with Image.open(path, formats=_formats()) as image:
                return as_meant(image)
    except Image.UnidentifiedImageError:
        hint = "remove or replace it"
        with path.open("rb") as file:
            start = file.read(4)
        if start in (b"II*\0", b"MM\0*"):
            hint = "a TIFF of 8 or 16 bits, or of floats of 32, and of grey, RGB or four channels can be"
        raise DataError(f"{path} is not an image that can be read\n  hint: {hint}") from None
    except Exception as e:  # decoders raise a dozen kinds for a broken file, struct.error and IndexError among them
        raise DataError(f"cannot read {path}: {first_line(e)}\n  hint: remove or replace it") from None


@functools.cache
def _formats() -> list[str]:
    """What Pillow reads by itself: PostScript is a program, and another one would run it."""
    Image.init()
    return [name for name in Image.ID if name != "EPS"]


def not_a_file(path: Path) -> str | None:
    """What a path is instead of a file that holds something; None: it is one. Nothing is opened: a pipe would wait."""
    try:
        status = os.stat(path)
    except OSError as e:
        broken = isinstance(e, FileNotFoundError) and os.path.islink(path)
        return "a link to nothing" if broken else f"not readable: {first_line(e)}"
    if not stat.S_ISREG(status.st_mode):
        return next((kind for test, kind in _KINDS if test(status.st_mode)), "something else") + ", not a file"
    return "empty" if not status.st_size else None


def as_meant(image: Image.Image) -> Image.Image:
    """A Pillow image of any mode, upright and with eight bits a channel. Raises: ValueError if it has no clear meaning,
    and what Pillow raises for a broken one."""
    image.load()
    tags = getattr(image, "tag_v2", {})
    if image.mode == "L" and _SIGNED in tags.get(_FORMAT, ()):
        raise _no_range(np.asarray(image).view(np.int8), 8)
    if tags.get(_SAMPLES, 1) > len(image.getbands()):
        image.info[_UNREAD] = tags[_SAMPLES]
    turn = _TURNS.get(_orientation(image))
    upright = _eight_bits(image)
    return upright.transpose(turn) if turn is not None else upright


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """What `as_meant` gave, with 1, 3 or 4 channels: grey is repeated, colour is weighed to grey (ITU-R 601), and what
    is transparent is laid over white. Four are red, green, blue and alpha, or a fourth that the file has.

    Raises: DataError for other numbers.
    """
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
    if mode is None:
        raise DataError(
            f"images from files have 1, 3 or 4 channels, the network takes {channels}\n"
            "  hint: npz:FILE holds arrays of any number"
        )
    if channels == 4 and _UNREAD in image.info:
        have = f"of its {image.info[_UNREAD]} channels only {len(image.getbands())} can be read"
        raise DataError(f"{have}, the network takes 4\n  hint: npz:FILE holds arrays of any number")
    if image.mode == mode or (image.mode == "RGBX" and channels == 4):
        return image
    if image.mode in ("LA", "RGBA") and channels != 4:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white.convert("RGB")
    return image.convert(mode)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken block beside a picture that is whole: nothing is known of its side
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _grey(image)
    if mode in ("P", "PA") or "transparency" in image.info:
        return image.convert("RGBA" if mode == "PA" or "transparency" in image.info else "RGB")
    if mode == "LAB":
        return _from_lab(image)
    wanted = {"1": "L", "La": "LA", "RGBa": "RGBA", "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB"}.get(mode)
    if wanted is None and mode not in ("L", "LA", "RGB", "RGBA", "RGBX"):
        raise ValueError(f"images of mode {mode} are not supported")
    return image.convert(wanted) if wanted else image


def _grey(image: Image.Image) -> Image.Image:
    """Grey of more than eight bits, or of floats, scaled to eight."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode == "F":
        unit = in_unit(values)
    elif image.mode == "I" and image.format not in _FIRST_OF_16:
        raise _no_range(values, _bits(tags, 32))
    else:
        unit = values.astype(np.float32) / (2 ** _bits(tags, 16) - 1)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        unit = 1 - unit
    return Image.fromarray((unit * 255).round().clip(0, 255).astype(np.uint8))


def _bits(tags: Any, usual: int) -> int:
    bits = tags.get(_BITS, usual)
    return int(bits[0] if isinstance(bits, tuple) else bits)


def _no_range(values: Any, bits: int) -> ValueError:
    text = f"whole numbers from {values.min()} to {values.max()} in {bits} bits have no agreed range"
    return ValueError(f"{text}; save 8 or 16 bits without a sign")


def in_unit(values: np.ndarray) -> np.ndarray:
    """Floats that are in 0..1, as float32. Raises: ValueError if they are not."""
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {values.size} values are NaN or infinite")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise ValueError(f"floats from {low:g} to {high:g}; floats are read from 0 to 1")
    return values.astype(np.float32)


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    rgb = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB"))
    assert rgb is not None  # only in place there is nothing
    return rgb


def first_line(e: Exception) -> str:
    """What an exception says, in a line."""
    reason = (e.strerror or str(e)).lower() if isinstance(e, OSError) and e.strerror else str(e)
    return reason.strip().partition("\n")[0] or type(e).__name__
