"""An image is read as it is meant, or an error names the file and the reason."""

from __future__ import annotations

import os
import re
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import blockforge as bf
from blockforge.analyze import open_images
from blockforge.train import DataError, open_data
from blockforge.train.data import Want
from blockforge.train.images import decode
from blockforge.train.pixels import read_image

SPECS = Path(__file__).parents[1] / "specs"
RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)
WIDE = Want((64, 64), 1, 1)
Save = Callable[[Path], None]


def _image(array: Any, **options: Any) -> Save:
    return lambda path: Image.fromarray(array).save(path, **options)


def _converted(mode: str, source: str = "RGB", **options: Any) -> Save:
    grey = Image.fromarray((RAMP * 255).round().astype(np.uint8)).convert(source)
    return lambda path: grey.convert(mode).save(path, **options)


def _lab(path: Path) -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    grey = Image.fromarray((RAMP * 255).round().astype(np.uint8)).convert("RGB")
    lab = ImageCms.applyTransform(grey, to_lab)
    assert lab is not None
    lab.save(path)


WORDS = (RAMP * 65535).round()
RAMPS: dict[str, tuple[str, Save]] = {
    "16 bit png": ("x.png", _image(WORDS.astype(np.uint16))),
    "16 bit tiff": ("x.tif", _image(WORDS.astype("<u2"))),
    "16 bit tiff, big-endian": ("x.tif", _image(WORDS.astype(">u2"))),
    "16 bit tiff, white is zero": ("x.tif", _image((65535 - WORDS).astype(np.uint16), tiffinfo={262: 0})),
    "16 bit pgm": ("x.pgm", _image(WORDS.astype(np.uint16))),
    "floats": ("x.tif", _image(RAMP.astype(np.float32))),
    "palette": ("x.png", _converted("P", "L")),
    "grey and alpha": ("x.png", _converted("LA")),
    "colours and alpha": ("x.png", _converted("RGBA")),
    "a fourth channel": ("x.tif", _converted("RGBX")),
    "cmyk": ("x.tif", _converted("CMYK")),
    "ycbcr": ("x.tif", _converted("YCbCr")),
    "lab": ("x.tif", _lab),
    "a gif": ("x.gif", _converted("L", "L")),
    "another suffix": ("x.jpg", _converted("RGB", format="PNG")),
}


@pytest.mark.parametrize("case", RAMPS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_ramp_stays_a_ramp(tmp_path: Path, case: str, channels: int) -> None:
    name, save = RAMPS[case]
    save(tmp_path / name)
    read = decode(read_image(tmp_path / name), Want((64, 64), channels, 1), 0)
    assert read.shape == (channels, 64, 64)
    error = (read.double() - torch.from_numpy(RAMP) * 255).abs()
    assert float(error.max()) <= 4  # of LAB and YCbCr; the others are exact to rounding
    assert len(read[0].unique()) > 200


def test_16_bit_colours_keep_their_upper_byte(tmp_path: Path) -> None:
    pixels = (np.stack([WORDS, WORDS[::-1], WORDS.T], -1)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    read = decode(read_image(tmp_path / "x.png"), Want((64, 64), 3, 1), 0).double()
    assert float((read - torch.from_numpy(pixels.astype(float)).permute(2, 0, 1) / 257).abs().max()) <= 1


def test_black_and_white_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(RAMP > 0.5).save(tmp_path / "x.png")
    assert decode(read_image(tmp_path / "x.png"), WIDE, 0).unique().tolist() == [0, 255]


def _transparent(mode: str, path: Path) -> None:
    """Black below, seen on the right half alone."""
    alpha = np.zeros((8, 8), np.uint8)
    alpha[:, 4:] = 255
    if mode == "P":
        Image.fromarray((alpha == 0).astype(np.uint8)).convert("L").convert("P").save(path, transparency=1)
    else:
        image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
        image.putalpha(Image.fromarray(alpha))
        image.convert(mode).save(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white_unless_alpha_is_wanted(tmp_path: Path, mode: str) -> None:
    _transparent(mode, tmp_path / "x.png")
    for channels in (1, 3):
        read = decode(read_image(tmp_path / "x.png"), Want((8, 8), channels, 1), 0)
        assert (read[:, :, :4] == 255).all()
        assert (read[:, :, 4:] == 0).all()
    with_alpha = decode(read_image(tmp_path / "x.png"), Want((8, 8), 4, 1), 0)
    assert with_alpha[3, 0].tolist() == [0] * 4 + [255] * 4


def test_a_picture_without_alpha_is_opaque_and_a_fourth_band_stays(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "x.png")
    assert decode(read_image(tmp_path / "x.png"), Want((8, 8), 4, 1), 0)[:, 0, 0].tolist() == [1, 2, 3, 255]
    fourth = Image.fromarray(np.full((8, 8, 4), (1, 2, 3, 40), np.uint8), "RGBX")
    assert decode(fourth, Want((4, 4), 4, 1), 0)[:, 0, 0].tolist() == [1, 2, 3, 40]


def _frames(path: Path) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (200, 10, 20)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_of_several_frames_the_first_is_the_image(tmp_path: Path, suffix: str) -> None:
    _frames(tmp_path / f"x.{suffix}")
    read = decode(read_image(tmp_path / f"x.{suffix}"), Want((8, 8), 1, 1), 0).float()
    assert float(read.mean()) == pytest.approx(200, abs=2)


# --- which side is up

STORED = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip
"""How an upright picture is stored under each orientation of EXIF."""


def _turned(path: Path, orientation: int) -> Any:
    """Writes a picture that is upright once it is turned as EXIF says; gives it as it is meant."""
    upright = np.zeros((32, 96), np.uint8)
    upright[:16, :32], upright[16:, :32], upright[:16, 64:] = 255, 160, 80
    exif, how = Image.Exif(), STORED[orientation]
    exif[0x0112] = orientation
    image = Image.fromarray(upright)
    (image if how is None else image.transpose(how)).save(path, exif=exif)
    return torch.from_numpy(upright.astype(float))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright_wherever_they_are_read(tmp_path: Path, suffix: str, orientation: int) -> None:
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / "d" / split / name).mkdir(parents=True)
            upright = _turned(tmp_path / "d" / split / name / f"x.{suffix}", orientation)
    data, want = open_data(f"imagefolder:{tmp_path / 'd'}?test=none"), Want((32, 96), 1, 2)
    model = bf.build(SPECS / "attention.yaml", {"input.size": [32, 96]}, seed=0)
    looked = open_images(str(tmp_path / "d" / "val"), model, count=2, batch_size=2).pictures[0]
    read = [next(iter(split.batches(want)))[0][0, 0] for split in (data.train, data.val)]
    for found in (*read, looked[0].mean(0) * 255):
        assert float((found.double() - upright).abs().mean()) < 6


@pytest.mark.parametrize("value", [0, 9, 300])
def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    Image.new("L", (12, 8)).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").size == (12, 8)


def test_a_broken_exif_block_beside_a_whole_picture(tmp_path: Path) -> None:
    Image.new("L", (12, 8)).save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fbroken")
    assert read_image(tmp_path / "x.jpg").size == (12, 8)


# --- what cannot be read, or has no clear meaning


def _floats(values: Any) -> Save:
    return _image(values.astype(np.float32))


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
"""What Pillow would hand to Ghostscript."""
REFUSED: dict[str, tuple[str, Save, str]] = {
    "32 bits": ("x.tif", _image(WORDS.astype(np.int32)), r"whole numbers from 0 to 65535 in 32 bits have no"),
    "floats of 0 to 255": ("x.tif", _floats(RAMP * 255), r"floats from 0 to 255; .* read from 0 to 1"),
    "floats below 0": ("x.tif", _floats(RAMP - 0.5), r"floats from -0\.5 to 0\.5"),
    "nan": ("x.tif", _floats(np.where(RAMP < 0.5, np.nan, RAMP)), r"2048 of 4096 values are NaN"),
    "infinite": ("x.tif", _floats(np.where(RAMP < 1, RAMP, np.inf)), r"1 of 4096 values are NaN or inf"),
    "nothing": ("x.jpg", lambda path: path.write_bytes(b"") and None, r"x\.jpg is empty"),
    "text": ("x.jpg", lambda path: path.write_text("no image") and None, r"x\.jpg is not an image that can be read"),
    "a program": ("x.jpg", lambda path: path.write_bytes(POSTSCRIPT) and None, r"x\.jpg is not an image"),
    "a pipe": ("x.jpg", lambda path: os.mkfifo(path), r"x\.jpg is a pipe, not a file"),
    "a folder": ("x.jpg", lambda path: path.mkdir(), r"x\.jpg is a folder, not a file"),
    "a link to nothing": ("x.jpg", lambda path: path.symlink_to("nowhere"), r"x\.jpg is a link to nothing"),
    "a link to itself": ("x.jpg", lambda path: path.symlink_to("x.jpg"), r"x\.jpg is not readable: too many levels"),
    "a device": ("x.jpg", lambda path: path.symlink_to("/dev/zero"), r"x\.jpg is a device, not a file"),
    "nowhere": ("x.jpg", lambda path: None, r"x\.jpg is not readable: no such file"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_image_is_named_with_the_reason(tmp_path: Path, case: str) -> None:
    name, write, message = REFUSED[case]
    write(tmp_path / name)
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / name)


def test_a_socket_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("x.jpg")
        with pytest.raises(DataError, match=r"x\.jpg is a socket, not a file"):
            read_image(Path("x.jpg"))


def _tiff(path: Path, pixels: Any, photometric: int, kind: int, order: str) -> None:
    """Writes a TIFF of any type and number of channels: one strip, no compression."""
    high, wide, samples = pixels.shape
    raw, bits = pixels.tobytes(), pixels.dtype.itemsize * 8
    shorts = {258: [bits] * samples, 259: [1], 262: [photometric], 277: [samples], 339: [kind] * samples}
    longs = {256: [wide], 257: [high], 273: [8], 278: [high], 279: [len(raw)]}
    tags = {tag: ("H", v) for tag, v in shorts.items()} | {tag: ("I", v) for tag, v in longs.items()}
    if samples == 4:
        tags[338] = ("H", [0])
    end = 8 + len(raw)
    body, beyond = struct.pack(order + "H", len(tags)), b""
    for tag, (form, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{form}", *values)
        body += struct.pack(order + "HHI", tag, 3 if form == "H" else 4, len(values))
        if len(packed) > 4:
            body += struct.pack(order + "I", end + 6 + 12 * len(tags) + len(beyond))
            beyond += packed
        else:
            body += packed.ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", end)
    path.write_bytes(start + raw + body + struct.pack(order + "I", 0) + beyond)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_of_16_bit_colours(tmp_path: Path, order: str) -> None:
    pixels = np.stack([WORDS, WORDS[::-1], WORDS.T], -1)
    _tiff(tmp_path / "x.tif", pixels.astype(order + "u2"), 2, 1, order)
    read = decode(read_image(tmp_path / "x.tif"), Want((64, 64), 3, 1), 0).double()
    assert float((read - torch.from_numpy(pixels).permute(2, 0, 1) / 257).abs().max()) <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_fourth_channel_that_pillow_leaves_out_is_not_taken_for_an_opaque_one(tmp_path: Path, order: str) -> None:
    pixels = np.repeat(WORDS[..., None], 4, -1).astype(order + "u2")
    for path in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / path).mkdir(parents=True)
        _tiff(tmp_path / path / "x.tif", pixels, 2, 1, order)
    data = open_data(f"imagefolder:{tmp_path}?test=none")
    assert next(iter(data.val.batches(Want((64, 64), 3, 2))))[0].shape == (2, 3, 64, 64)
    with pytest.raises(DataError, match=r"val/a/x\.tif: of its 4 channels only 3 can be read, the network takes 4"):
        next(iter(data.val.batches(Want((64, 64), 4, 2))))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "channels", "message"),
    [
        ("i1", 1, "x.tif: whole numbers from 0 to 127 in 8 bits have no agreed range"),
        ("i2", 1, "x.tif: whole numbers from 0 to 32767 in 16 bits have no agreed range"),
        ("f8", 1, "x.tif is not an image that can be read\n  hint: a TIFF of 8 or 16 bits, or of floats of 32"),
        ("f4", 3, "x.tif is not an image that can be read\n  hint: a TIFF of 8 or 16 bits, or of floats of 32"),
        ("u1", 5, "x.tif is not an image that can be read\n  hint: a TIFF of 8 or 16 bits, or of floats of 32"),
    ],
)
def test_tiffs_of_other_types_are_refused(tmp_path: Path, order: str, kind: str, channels: int, message: str) -> None:
    pixels = np.repeat(RAMP[..., None], channels, -1)
    photometric, number = (2 if channels in (3, 4) else 1), {"u": 1, "i": 2, "f": 3}[kind[0]]
    scale = {"u1": 255, "u2": 65535, "i1": 127, "i2": 32767}.get(kind, 1)
    _tiff(tmp_path / "x.tif", (pixels * scale).astype(order + kind), photometric, number, order)
    with pytest.raises(DataError, match=re.escape(message)):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "gif", "webp", "bmp", "ppm"])
@pytest.mark.parametrize("part", [0.3, 0.9, 0.99])
def test_a_file_that_was_cut_off(tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"x.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(DataError, match=rf"x\.{suffix}"):
        read_image(path)


@pytest.mark.parametrize("pixels", [1000, 3000])
def test_a_bomb_is_refused_and_a_large_image_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    _image((RAMP * 255).astype(np.uint8))(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)  # Pillow warns above it, and refuses above twice as many
    if pixels == 3000:
        assert read_image(tmp_path / "x.png").size == (64, 64)
        return
    with pytest.raises(DataError, match=r"cannot read .*x\.png: .*decompression bomb"):
        read_image(tmp_path / "x.png")


def test_channels_that_files_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images from files have 1, 3 or 4 channels, the network takes 5"):
        decode(Image.new("L", (8, 8)), Want((8, 8), 5, 1), 0)
