"""Untrusted archives: sound arrays come back as NumPy reads them, all others are refused in one line."""

import os
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest

from vae_jax.data import archives, load_npz
from vae_jax.errors import UserError


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "images.npz"


def read(path: pathlib.Path) -> np.ndarray:
    return archives.read_arrays(path, ("images",), (), "an .npz", "write it again", single="images")["images"]


def refused(path: pathlib.Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith("; write it again") and path.name in message
    return message


def npy(array: np.ndarray, **header: object) -> bytes:
    """The bytes of an `.npy`, whose header says something else where that is given."""
    said = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape, **header}
    return with_header(repr(said).encode() + b"\n", array.tobytes())


def with_header(text: bytes, body: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + body


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
SOUND = {
    "one number": np.array(3.5),
    "big-endian": np.arange(6, dtype=">i4").reshape(2, 3),
    "Fortran order": np.asfortranarray(IMAGES),
    "texts": np.array(["a", "Ä漢"]),
    "no rows": IMAGES[:0],
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("array", SOUND.values(), ids=SOUND)
def test_sound_arrays_come_back_as_numpy_reads_them(path: pathlib.Path, array: np.ndarray, save) -> None:
    save(path, images=array, others=np.array([None]))
    np.save(path.with_suffix(".npy"), array)
    for found in (read(path), read(path.with_suffix(".npy"))):
        np.testing.assert_array_equal(found, array)
        assert found.shape == array.shape and found.dtype == array.dtype.newbyteorder("=")
        assert found.flags.c_contiguous and found.dtype.isnative


WRONG = {
    "huge shape": npy(IMAGES, shape=(2**40, 4, 3)),
    "shape beyond 64 bits": npy(IMAGES, shape=(10**30,)),
    "negative shape": npy(IMAGES, shape=(-5, 4, -3)),
    "nothing": b"",
    "header that is not a dictionary": with_header(b"[" * 900),
    "header that runs out": with_header(b"{'descr': ", version=2, length=2**31),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_damaged_array_is_refused(path: pathlib.Path, content: bytes) -> None:
    path.with_suffix(".npy").write_bytes(content)
    refused(path.with_suffix(".npy"))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("images.npy", content)
        refused(path)


def test_archives_larger_than_free_memory_are_refused(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.zeros((10, 1000, 1000), np.uint8)
    np.savez_compressed(path, images=large)
    assert path.stat().st_size < 2**15
    monkeypatch.setattr(archives, "available_memory", lambda: 15 * 10**6)
    assert "take 10 MB, but there is room for 7 MB only" in refused(path)
    monkeypatch.setattr(archives, "available_memory", lambda: 25 * 10**6)
    assert read(path).shape == large.shape
    # Each fits, but not both of them.
    np.savez_compressed(path, train_images=large, test_images=large[:8])
    with pytest.raises(UserError, match="its arrays take 17 MB"):
        load_npz(str(path), 0.2, 0)


def test_member_that_inflates_beyond_its_declared_size(path: pathlib.Path) -> None:
    content = npy(np.zeros(1_000_000, np.uint8))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", content)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", len(content)), struct.pack("<I", 200)))
    refused(path)


def test_changed_byte_is_found(path: pathlib.Path) -> None:
    np.savez(path, images=IMAGES)
    content = bytearray(path.read_bytes())
    content[content.index(IMAGES.tobytes()) + 30] ^= 1
    path.write_bytes(content)
    assert "CRC" in refused(path)


class Touch:
    """Unpickled, it leaves a mark."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_pickles_are_not_run(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    mark = tmp_path / "was run"
    np.savez(path, images=np.array([Touch(mark)]))
    refused(path)
    np.save(path.with_suffix(".npy"), np.array([Touch(mark)]))
    refused(path.with_suffix(".npy"))
    path.write_bytes(pickle.dumps(Touch(mark)))
    refused(path)
    assert not mark.exists()
    # The mark would have been left.
    np.load(path.with_suffix(".npy"), allow_pickle=True)
    assert mark.exists()


def test_pipe_is_not_waited_for(path: pathlib.Path) -> None:
    os.mkfifo(path)
    assert "it is not a regular file" in refused(path)


@pytest.mark.parametrize("label", [10**6, -1, 2**32 + 1])
def test_labels_out_of_range_are_refused(path: pathlib.Path, label: int) -> None:
    np.savez(path, images=IMAGES[:4], labels=np.array([0, label, 1, 2]))
    with pytest.raises(UserError, match="whole numbers from 0 to 99999; number"):
        load_npz(str(path), 0.25, 0)
