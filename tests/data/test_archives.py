"""Archives of others: what is sound comes back as NumPy reads it, all else is refused before memory is taken."""

import io
import os
import pathlib
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from vae_jax.data import archives, load_npz
from vae_jax.errors import UserError

MOST_TAKEN = 8 * 2**20


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "images.npz"


def read(path: pathlib.Path) -> np.ndarray:
    return archives.read_arrays(path, ("images",), "an .npz", "write it again", single="images").arrays["images"]


def refused(path: pathlib.Path) -> str:
    """The one line, once it is sure that hardly any memory was taken."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert peak < MOST_TAKEN, message
    assert "\n" not in message and message.endswith("; write it again") and "images.npz" in message
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


def patch(path: pathlib.Path, mark: bytes, offset: int, value: bytes) -> None:
    """Replaces a field of the zip structures that begin with a mark."""
    content = bytearray(path.read_bytes())
    place = content.index(mark) + offset
    content[place : place + len(value)] = value
    path.write_bytes(content)


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
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
    with path.open("wb") as file:
        np.save(file, IMAGES)
    np.testing.assert_array_equal(read(path), IMAGES)
    with zipfile.ZipFile(path, "w") as archive, archive.open("images.npy", "w", force_zip64=True) as member:
        member.write(npy(IMAGES))
    np.testing.assert_array_equal(read(path), IMAGES)


WRONG = {
    "huge shape": (npy(IMAGES, shape=(2**40, 4, 3)), "(1099511627776, 4, 3)"),
    "shape beyond 64 bits": (npy(IMAGES, shape=(10**30,)), "holds 60 bytes"),
    "shape that overflows to a small one": (npy(IMAGES, shape=(2**62, 4, 16)), "holds 60 bytes"),
    "smaller shape than bytes": (npy(IMAGES, shape=(4, 4, 3)), "48 bytes, but holds 60 bytes"),
    "negative shape": (npy(IMAGES, shape=(-5, 4, -3)), "(-5, 4, -3)"),
    "truth in a shape": (npy(IMAGES, shape=(True, 60)), "shape (True, 60)"),
    "fraction in a shape": (npy(IMAGES, shape=(60.0,)), "images.npz"),
    "many axes": (npy(IMAGES, shape=(1,) * 30 + (60,)), "shape"),
    "structure": (npy(np.zeros(4, "u1,f4")), "not one of plain numbers"),
    "dates": (npy(np.zeros(4, "M8[s]")), "datetime64"),
    "raw bytes": (npy(np.zeros(4, "V3")), "not one of plain numbers"),
    "sub-array": (npy(np.zeros((4, 3), "u1"), descr=("|u1", (3,)), shape=(4,)), "images.npz"),
    "texts of no letters": (npy(np.zeros(0, "u1"), descr="<U0", shape=(10**12,)), "not one of plain numbers"),
    "Python objects": (npy(np.array([{}, None])), "aren't unpickled"),
    "nothing": (b"", "images.npz"),
    "other format": (with_header(b"{}", version=7), "(7, 0)"),
    "header that is no dictionary": (with_header(b"[" * 900), "images.npz"),
    "header that runs out": (with_header(b"{'descr': ", version=2, length=2**31), "images.npz"),
    "pickle": (pickle.dumps([1, 2]), "images.npz"),
}


@pytest.mark.parametrize(("content", "words"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_member_that_is_no_array(path: pathlib.Path, content: bytes, words: str, method: int) -> None:
    write(path, content, method=method)
    assert words in refused(path)


@pytest.mark.parametrize("content", [WRONG[name][0] for name in ("huge shape", "Python objects", "negative shape")])
def test_single_array_that_is_none(path: pathlib.Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path)


def test_bomb_is_refused_by_the_memory_that_is_free(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(path, images=np.zeros((100, 1000, 1000), np.uint8))
    assert path.stat().st_size < 2**18
    monkeypatch.setattr(archives, "available_memory", lambda: 150 * 10**6)
    assert "takes 95 MB, and there is room for 72 MB" in refused(path)
    monkeypatch.setattr(archives, "available_memory", lambda: 250 * 10**6)
    assert read(path).shape == (100, 1000, 1000)
    # Each fits, but not both of them.
    np.savez_compressed(
        path, train_images=np.zeros((100, 1000, 1000), np.uint8), test_images=np.zeros((80, 1000, 1000), np.uint8)
    )
    with pytest.raises(UserError, match="its arrays take 172 MB"):
        load_npz(str(path), 0.2, 0)


def test_bomb_that_claims_what_no_machine_has(path: pathlib.Path) -> None:
    """Header and directory agree on a petabyte; one of them is believed by what reads only one of them."""
    shape = (2**50,)
    write(path, npy(np.zeros(100_000, np.uint8), shape=shape))
    header = len(npy(np.zeros(0, np.uint8), shape=shape))
    with zipfile.ZipFile(path) as archive:
        compressed = archive.infolist()[0].compress_size
    # The size of 64 bits stands in an extra field, which this archive is written with.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo("images.npy")
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, npy(np.zeros(100_000, np.uint8), shape=shape))
        archive.infolist()[0].file_size = header + 2**50
    assert zipfile.ZipFile(path).infolist()[0].file_size == header + 2**50
    message = refused(path)
    assert "1,048,576.0 GB" in message and f"{compressed:,} bytes" in message


def test_header_that_inflates_to_gigabytes(path: pathlib.Path) -> None:
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1,)" + b" " * (200 * 2**20) + b"}\n"
    write(path, with_header(text, b"\0", version=2))
    refused(path)


def test_directory_of_very_many_members(path: pathlib.Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(25_000):
            archive.writestr(f"member{number}.npy", b"")
        archive.writestr("images.npy", npy(IMAGES))
    assert "directory" in refused(path)


def test_members_that_are_encrypted_doubled_or_compressed_otherwise(path: pathlib.Path) -> None:
    write(path, npy(IMAGES))
    for mark, offset in ((LOCAL, 6), (CENTRAL, 8)):
        patch(path, mark, offset, b"\x01")
    assert "encrypted" in refused(path)
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("images.npy", npy(IMAGES))
        archive.writestr("images.npy", npy(IMAGES + 1))
    assert "two arrays of one name" in refused(path)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        write(path, npy(IMAGES), method=method)
        assert "method" in refused(path)
    write(path, npy(IMAGES))
    for mark, offset in ((LOCAL, 8), (CENTRAL, 10)):
        patch(path, mark, offset, b"\x63")
    assert "method 99" in refused(path)


def test_bytes_that_changed_are_noticed(path: pathlib.Path) -> None:
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


def test_other_members_are_never_looked_at(path: pathlib.Path) -> None:
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
    with path.open("wb") as file:
        np.save(file, np.array([Touch(mark)]))
    refused(path)
    path.write_bytes(pickle.dumps(Touch(mark)))
    refused(path)
    assert not mark.exists()
    # The mark would have been left.
    np.load(io.BytesIO(npy(np.array([Touch(mark)]))), allow_pickle=True)
    assert mark.exists()


def test_pipe_is_not_waited_for(path: pathlib.Path) -> None:
    os.mkfifo(path)
    assert "it is no file" in refused(path)


LABELS = {"too many classes": [0, 10**6, 1, 2], "below 0": [0, 1, 2, -1], "beyond 32 bits": [0, 1, 2, 2**32 + 1]}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_that_are_no_classes(path: pathlib.Path, labels: list[int]) -> None:
    np.savez(path, images=IMAGES[:4], labels=np.array(labels))
    with pytest.raises(UserError, match="must be from 0 to 99999; number"):
        load_npz(str(path), 0.25, 0)
