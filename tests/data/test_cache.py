"""The cache gives back what was saved; damaged files cost time, but never change a pixel."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from vae_jax.data import cache
from vae_jax.data.dividing import fingerprint

NAMES = ("images", "labels")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "vae_jax" / "data"


def make_arrays(labels: bool = True, seed: int = 0) -> dict[str, np.ndarray | None]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (5, 4, 3, 1), dtype=np.uint8)
    return {"images": images, "labels": rng.integers(0, 10, 5, dtype=np.int32) if labels else None}


def assert_same(loaded: tuple[cache.Arrays, str] | None, saved: cache.Arrays) -> None:
    assert loaded is not None and loaded[1] == fingerprint(*saved.values())
    for name in NAMES:
        one, other = loaded[0][name], saved[name]
        if other is None:
            assert one is None
        else:
            np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("labels", [True, False])
def test_saved_arrays_come_back_read_only(place: Path, labels: bool) -> None:
    arrays = make_arrays(labels)
    cache.save("key", arrays)
    loaded = cache.load("key", NAMES)
    assert_same(loaded, arrays)
    assert loaded is not None and loaded[0]["images"] is not None and not loaded[0]["images"].flags.writeable
    assert [path.name for path in place.iterdir()] == ["key"]


def test_a_missing_key_is_none_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    cache.save("key", make_arrays())
    assert cache.load("other", NAMES) is None
    assert not caplog.records


def flip_a_bit(folder: Path) -> None:
    path = folder / "images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    path = folder / "images.npy"
    path.write_bytes(path.read_bytes()[:-1])


def empty(folder: Path) -> None:
    (folder / "labels.npy").write_bytes(b"")


def remove_an_array(folder: Path) -> None:
    (folder / "images.npy").unlink()


def pickle_an_array(folder: Path) -> None:
    np.save(folder / "labels.npy", np.array([{}], dtype=object), allow_pickle=True)


def change_the_digest(folder: Path) -> None:
    (folder / "fingerprint.txt").write_bytes(b"\xff")


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, empty, remove_an_array, pickle_an_array, change_the_digest])
def test_damage_is_found_and_repaired(place: Path, damage, caplog: pytest.LogCaptureFixture) -> None:
    arrays = make_arrays()
    cache.save("key", arrays)
    damage(place / "key")
    assert cache.load("key", NAMES) is None
    assert len(caplog.records) == 1 and "damaged" in caplog.text
    cache.save("key", arrays)
    assert_same(cache.load("key", NAMES), arrays)


def test_a_folder_that_cannot_be_written_is_warned_of(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    place.parent.parent.mkdir(parents=True)
    place.parent.write_text("in the way")
    cache.save("key", make_arrays())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    message = caplog.records[0].getMessage()
    assert "\n" not in message and str(place) in message and "XDG_CACHE_HOME" in message
    assert cache.load("key", NAMES) is None


def test_a_full_disk_changes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = make_arrays(seed=0)
    cache.save("key", kept)

    def fail(file, array, allow_pickle) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(np, "save", fail)
        cache.save("key", make_arrays(seed=1))
        cache.save("new", make_arrays(seed=1))
    assert_same(cache.load("key", NAMES), kept)
    assert cache.load("new", NAMES) is None
    assert [path.name for path in place.iterdir()] == ["key"]


def test_unfinished_folders_are_removed_after_a_day(place: Path) -> None:
    recent, old = place / ".unfinished-1", place / ".unfinished-2"
    recent.mkdir(parents=True)
    old.mkdir()
    os.utime(old, (0, 0))
    cache.save("key", make_arrays())
    assert recent.exists() and not old.exists()


def test_the_fingerprint_of_files_follows_every_change(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    path.write_bytes(b"a" * 100)
    os.utime(path, ns=(0, 0))
    digests = [cache.files_fingerprint(tmp_path, ["shard"], "0")]
    assert cache.files_fingerprint(tmp_path, ["shard"], "0") == digests[0]
    digests.append(cache.files_fingerprint(tmp_path, ["shard"], "28"))
    os.utime(path, ns=(0, 1))
    digests.append(cache.files_fingerprint(tmp_path, ["shard"], "0"))
    path.write_bytes(b"a" * 101)
    digests.append(cache.files_fingerprint(tmp_path, ["shard"], "0"))
    path.rename(tmp_path / "other")
    digests.append(cache.files_fingerprint(tmp_path, ["other"], "0"))
    assert len(set(digests)) == len(digests)
