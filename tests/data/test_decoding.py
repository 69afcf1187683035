"""Pictures that are too large by what they say of themselves, or are no pictures but programs."""

import io
import pathlib
import struct
import sys
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from vae_jax.data import ImageKind, decoding
from vae_jax.data.decoding import MOST_PIXELS, Sizing, decoded
from vae_jax.data.folder import load_folder
from vae_jax.data.user_images import read_images
from vae_jax.errors import UserError


def encoded(kind: str, size: tuple[int, int] = (3, 2), mode: str = "L") -> bytearray:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return bytearray(file.getvalue())


def png(width: int, height: int) -> bytes:
    content = encoded("PNG")
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def gif(width: int, height: int) -> bytes:
    content = encoded("GIF")
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


def bmp(width: int, height: int) -> bytes:
    content = encoded("BMP")
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


def jpeg(width: int, height: int) -> bytes:
    content = encoded("JPEG")
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def tiff(width: int, height: int) -> bytes:
    content = encoded("TIFF")
    for tag, value in ((256, width), (257, height)):
        place = next(
            place for place in range(0, len(content) - 12) if content[place : place + 4] == struct.pack("<HH", tag, 4)
        )
        content[place + 8 : place + 12] = struct.pack("<I", value)
    return bytes(content)


def webp(width: int, height: int) -> bytes:
    content = encoded("WEBP")
    place = content.index(b"VP8L") + 9
    (bits,) = struct.unpack("<I", content[place : place + 4])
    content[place : place + 4] = struct.pack("<I", bits & ~(2**28 - 1) | (width - 1) | (height - 1) << 14)
    return bytes(content)


FORMATS = {"png": png, "gif": gif, "bmp": bmp, "jpg": jpeg, "tif": tiff, "webp": webp}
# Beyond Pillow's own error, between that and its warning, and between its warning and our limit.
SIZES = [(60_000, 60_000), (13_000, 13_000), (8192, 10_000), (8192, 8193), (MOST_PIXELS + 1, 1)]


def fits(kind: str, size: tuple[int, int]) -> bool:
    most = {"gif": 2**16 - 1, "jpg": 2**16 - 1, "webp": 2**14}.get(kind, 2**31 - 1)
    return max(size) <= most


CLAIMS = [(kind, size) for kind in FORMATS for size in SIZES if fits(kind, size)]


@pytest.mark.parametrize(("kind", "size"), CLAIMS)
def test_pictures_with_a_huge_declared_size_are_refused(
    kind: str, size: tuple[int, int], tmp_path: pathlib.Path
) -> None:
    for number in range(2):
        (tmp_path / f"{number}.{kind}").write_bytes(FORMATS[kind](*size))
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            load_folder(str(tmp_path), 0.5, 0, Sizing(8), 1)
        with pytest.raises(UserError) as other:
            read_images(str(tmp_path), ImageKind((8, 8, 1), 255, 0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    for message in (str(caught.value), str(other.value)):
        assert "limit of 67,108,864 pixels (8192 x 8192)" in message and f"0.{kind}" in message
        assert ";" in message and "\n" not in message
    assert peak < 8 * 2**20


def test_pictures_are_no_rows(tmp_path: pathlib.Path) -> None:
    (tmp_path / "0.png").write_bytes(png(3, 2))
    with pytest.raises(UserError, match="for rows of numbers, not for pictures"):
        read_images(str(tmp_path), ImageKind((7,), 1, 0, values="counts"))


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_bytes_with_their_own_size_are_read(kind: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / f"0.{kind}").write_bytes(FORMATS[kind](3, 2))
    assert decoded(tmp_path / f"0.{kind}", True).shape == (2, 3, 1)


def test_pictures_up_to_the_limit_are_decoded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (12_000, 12_000)).save(tmp_path / "0.png")
    assert (tmp_path / "0.png").stat().st_size < 100_000
    with pytest.raises(ValueError, match="more than the limit of"):
        decoded(tmp_path / "0.png", None)
    monkeypatch.setattr(decoding, "MOST_PIXELS", 64 * 32)
    Image.new("L", (64, 32)).save(tmp_path / "1.png")
    Image.new("L", (64, 33)).save(tmp_path / "2.png")
    assert decoded(tmp_path / "1.png", None).shape == (32, 64, 1)
    with pytest.raises(ValueError, match="more than the limit of"):
        decoded(tmp_path / "2.png", None)


def test_warning_filters_are_unchanged(tmp_path: pathlib.Path) -> None:
    """And Pillow's own limit too, for whoever else uses it in this process."""
    before, most = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    (tmp_path / "0.png").write_bytes(png(13_000, 13_000))
    with pytest.raises(ValueError):
        decoded(tmp_path / "0.png", None)
    assert warnings.filters == before and most == Image.MAX_IMAGE_PIXELS
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(tmp_path / "0.png").close()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
_events: list[str] = []
_watching: list[bool] = []


def _watch(event: str, arguments: tuple) -> None:
    if _watching and event in ("subprocess.Popen", "os.system", "os.posix_spawn"):
        _events.append(f"{event} {arguments[:2]}")


sys.addaudithook(_watch)


@pytest.mark.parametrize("name", ["0.png", "0.jpg", "0.tif"])
def test_programs_named_like_pictures_are_not_run(name: str, tmp_path: pathlib.Path) -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    (tmp_path / name).write_bytes(POSTSCRIPT)
    with Image.open(tmp_path / name) as image:
        assert image.format == "EPS"
    _watching.append(True)
    try:
        with pytest.raises(UserError, match="cannot identify image"):
            load_folder(str(tmp_path), 0.5, 0, Sizing(), 1)
    finally:
        _watching.clear()
    assert _events == []


def test_other_formats_of_pillow_are_not_read(tmp_path: pathlib.Path) -> None:
    for kind in ("PPM", "PCX", "ICO", "TGA", "SGI"):
        Image.new("RGB", (16, 16)).save(tmp_path / "0.png", kind)
        with pytest.raises(Exception, match="cannot identify"):
            decoded(tmp_path / "0.png", None)
    # What phones call a JPEG.
    Image.new("RGB", (16, 16)).save(
        tmp_path / "0.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))]
    )
    np.testing.assert_array_equal(decoded(tmp_path / "0.jpg", None), np.zeros((16, 16, 3)))
