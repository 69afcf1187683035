"""Pictures that are too large by what they say of themselves, or are no pictures but programs."""

import io
import pathlib
import struct
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from vae_jax.data import ImageKind, decoding
from vae_jax.data.decoding import MOST_PIXELS, Sizing, decoded
from vae_jax.data.folder import load_folder
from vae_jax.data.user_images import read_images
from vae_jax.errors import UserError


def declaring(kind: str, width: int, height: int) -> bytes:
    """A picture of 3 x 2 pixels that says it has others."""
    file = io.BytesIO()
    Image.new("L", (3, 2)).save(file, {"jpg": "JPEG"}.get(kind, kind))
    content = bytearray(file.getvalue())

    def put(place: int, form: str, *numbers: int) -> None:
        content[place : place + struct.calcsize(form)] = struct.pack(form, *numbers)

    if kind == "png":
        put(16, ">II", width, height)
        put(29, ">I", zlib.crc32(content[12:29]))
    elif kind == "gif":
        put(6, "<HH", width, height)
    elif kind == "bmp":
        put(18, "<ii", width, height)
    else:
        put(content.index(b"\xff\xc0") + 5, ">HH", height, width)
    return bytes(content)


FORMATS = ("png", "gif", "bmp", "jpg")
# Beyond Pillow's own error, between that and its warning, and between its warning and our limit.
CLAIMS = [("png", 60_000, 60_000), ("png", MOST_PIXELS + 1, 1), *((kind, 13_000, 13_000) for kind in FORMATS)]


@pytest.mark.parametrize(("kind", "width", "height"), [*CLAIMS, ("png", 8192, 8193), ("jpg", 8192, 10_000)])
def test_pictures_with_a_huge_declared_size_are_refused(
    kind: str, width: int, height: int, tmp_path: pathlib.Path
) -> None:
    for number in range(2):
        (tmp_path / f"{number}.{kind}").write_bytes(declaring(kind, width, height))
    tracemalloc.start()
    try:
        for read in (
            lambda: load_folder(str(tmp_path), 0.5, 0, Sizing(8), 1),
            lambda: read_images(str(tmp_path), ImageKind((8, 8, 1), 255, 0)),
        ):
            with pytest.raises(UserError, match=rf"0\.{kind}.*limit of 67,108,864 pixels \(8192 x 8192\)"):
                read()
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_bytes_with_their_own_size_are_read(kind: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / f"0.{kind}").write_bytes(declaring(kind, 3, 2))
    assert decoded(tmp_path / f"0.{kind}", True).shape == (2, 3, 1)


def test_pictures_up_to_the_limit_are_decoded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MOST_PIXELS", 64 * 32)
    for height in (32, 33):
        Image.new("L", (64, height)).save(tmp_path / f"{height}.png")
    assert decoded(tmp_path / "32.png", None).shape == (32, 64, 1)
    with pytest.raises(ValueError, match="more than the limit of"):
        decoded(tmp_path / "33.png", None)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
_events: list[str] = []
_watching: list[bool] = []


def _watch(event: str, arguments: tuple) -> None:
    if _watching and event in ("subprocess.Popen", "os.system", "os.posix_spawn"):
        _events.append(f"{event} {arguments[:2]}")


sys.addaudithook(_watch)


@pytest.mark.parametrize("name", ["0.png", "0.tif"])
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
    image = Image.new("RGB", (16, 16))
    for kind in ("PPM", "PCX", "ICO", "TGA", "SGI"):
        image.save(tmp_path / "0.png", kind)
        with pytest.raises(Exception, match="cannot identify"):
            decoded(tmp_path / "0.png", None)
    # What phones call a JPEG.
    image.save(tmp_path / "0.jpg", "MPO", save_all=True, append_images=[image])
    np.testing.assert_array_equal(decoded(tmp_path / "0.jpg", None), np.zeros((16, 16, 3)))
