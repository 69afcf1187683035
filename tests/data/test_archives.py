"""Untrusted archives: sound arrays come back as NumPy reads them, all others are refused in one line."""

import io
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
    file = io.BytesIO()
    np.save(file, array)
    if not header:
        return file.getvalue()
    said = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape, **header}
    return with_header(repr(said).encode() + b"\n", array.tobytes())


def with_header(text: bytes, body: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + body


def write(path: pathlib.Path, *members: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for number, content in enumerate(members):
            archive.writestr("images.npy" if not number else f"other{number}.npy", content)


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
SOUND = {
    "bytes": IMAGES,
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
    found = read(path)
    expected = np.load(path)["images"]
    np.testing.assert_array_equal(found, expected)
    assert found.shape == expected.shape and found.dtype == expected.dtype.newbyteorder("=")
    assert found.flags.c_contiguous and found.dtype.isnative


def test_single_array_and_large_archive_of_another_format(path: pathlib.Path) -> None:
    np.save(path.with_suffix(".npy"), IMAGES)
    np.testing.assert_array_equal(read(path.with_suffix(".npy")), IMAGES)
    with zipfile.ZipFile(path, "w") as archive, archive.open("images.npy", "w", force_zip64=True) as member:
        member.write(npy(IMAGES))
    np.testing.assert_array_equal(read(path), IMAGES)


WRONG = {
    "huge shape": npy(IMAGES, shape=(2**40, 4, 3)),
    "shape beyond 64 bits": npy(IMAGES, shape=(10**30,)),
    "negative shape": npy(IMAGES, shape=(-5, 4, -3)),
    "fraction in a shape": npy(IMAGES, shape=(60.0,)),
    "Python objects": npy(np.array([{}, None])),
    "nothing": b"",
    "other format": with_header(b"{}", version=7),
    "header that is not a dictionary": with_header(b"[" * 900),
    "header that runs out": with_header(b"{'descr': ", version=2, length=2**31),
    "pickle": pickle.dumps([1, 2]),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_member(path: pathlib.Path, content: bytes, method: int) -> None:
    write(path, content, method=method)
    refused(path)


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_damaged_single_array(path: pathlib.Path, content: bytes) -> None:
    path = path.with_suffix(".npy")
    path.write_bytes(content)
    refused(path)


def test_the_error_lists_the_arrays_that_are_there(path: pathlib.Path) -> None:
    np.savez(path, pictures=IMAGES, labels=IMAGES[:, 0, 0])
    assert "it holds pictures, labels, but not images" in refused(path)


def test_archives_larger_than_free_memory_are_refused(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(path, images=np.zeros((100, 1000, 1000), np.uint8))
    assert path.stat().st_size < 2**18
    monkeypatch.setattr(archives, "available_memory", lambda: 150 * 10**6)
    assert "take 95 MB, but there is room for 72 MB only" in refused(path)
    monkeypatch.setattr(archives, "available_memory", lambda: 250 * 10**6)
    assert read(path).shape == (100, 1000, 1000)
    # Each fits, but not both of them.
    np.savez_compressed(
        path, train_images=np.zeros((100, 1000, 1000), np.uint8), test_images=np.zeros((80, 1000, 1000), np.uint8)
    )
    with pytest.raises(UserError, match="its arrays take 172 MB"):
        load_npz(str(path), 0.2, 0)


def test_member_that_inflates_beyond_its_declared_size(path: pathlib.Path) -> None:
    write(path, npy(np.zeros(1_000_000, np.uint8)))
    size = len(npy(np.zeros(1_000_000, np.uint8)))
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", size), struct.pack("<I", 200)))
    refused(path)


def test_changed_bytes_are_found(path: pathlib.Path) -> None:
    write(path, npy(IMAGES), method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    place = content.index(IMAGES.tobytes())
    for offset in (0, 30, IMAGES.size - 1):
        content[place + offset] ^= 1
        path.write_bytes(content)
        assert "CRC" in refused(path)
        content[place + offset] ^= 1
    path.write_bytes(content)
    np.testing.assert_array_equal(read(path), IMAGES)


def test_other_members_are_ignored(path: pathlib.Path) -> None:
    write(path, npy(IMAGES), npy(np.array([{}])), b"anything")
    np.testing.assert_array_equal(read(path), IMAGES)


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
    np.load(io.BytesIO(npy(np.array([Touch(mark)]))), allow_pickle=True)
    assert mark.exists()


def test_pipe_is_not_waited_for(path: pathlib.Path) -> None:
    os.mkfifo(path)
    assert "it is not a regular file" in refused(path)


LABELS = {"too many classes": [0, 10**6, 1, 2], "below 0": [0, 1, 2, -1], "beyond 32 bits": [0, 1, 2, 2**32 + 1]}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_out_of_range_are_refused(path: pathlib.Path, labels: list[int]) -> None:
    np.savez(path, images=IMAGES[:4], labels=np.array(labels))
    with pytest.raises(UserError, match="whole numbers from 0 to 99999; number"):
        load_npz(str(path), 0.25, 0)
