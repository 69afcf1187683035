"""The cache gives back what was saved; damaged files cost time, but never change a pixel."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from on_disk import HARMS

from vae_jax.data import cache
from vae_jax.data.dividing import fingerprint

NAMES = ("images", "labels")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "vae_jax" / "data"


def make_arrays(seed: int = 0, labels: bool = True) -> dict[str, np.ndarray | None]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (5, 4, 3, 1), dtype=np.uint8)
    return {"images": images, "labels": rng.integers(0, 10, 5, dtype=np.int32) if labels else None}


def assert_kept(saved: cache.Arrays) -> None:
    loaded = cache.load("key", NAMES)
    assert loaded is not None and loaded[1] == fingerprint(*saved.values())
    for name in NAMES:
        np.testing.assert_equal(loaded[0][name], saved[name])
    assert loaded[0]["images"] is not None and not loaded[0]["images"].flags.writeable


@pytest.mark.parametrize("labels", [True, False])
def test_saved_arrays_come_back_read_only(place: Path, labels: bool, caplog: pytest.LogCaptureFixture) -> None:
    cache.save("key", make_arrays(labels=labels))
    assert_kept(make_arrays(labels=labels))
    assert [path.name for path in place.iterdir()] == ["key"]
    assert cache.load("other", NAMES) is None and not caplog.records


def pickle_an_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("damage", [*HARMS, pickle_an_array])
def test_damage_is_found_and_repaired(place: Path, damage, caplog: pytest.LogCaptureFixture) -> None:
    cache.save("key", make_arrays())
    damage(place / "key" / "images.npy")
    assert cache.load("key", NAMES) is None
    assert len(caplog.records) == 1 and "damaged" in caplog.text
    cache.save("key", make_arrays())
    assert_kept(make_arrays())


def test_a_folder_that_cannot_be_written_is_warned_of(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    place.parent.parent.mkdir(parents=True)
    place.parent.write_text("in the way")
    cache.save("key", make_arrays())
    (record,) = caplog.records
    assert str(place) in record.getMessage() and "XDG_CACHE_HOME" in record.getMessage()
    assert cache.load("key", NAMES) is None


def test_a_full_disk_changes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.save("key", make_arrays())

    def fail(file, array, allow_pickle) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(np, "save", fail)
        cache.save("key", make_arrays(seed=1))
    assert_kept(make_arrays())
    assert [path.name for path in place.iterdir()] == ["key"]


def test_the_fingerprint_of_files_follows_every_change(tmp_path: Path) -> None:
    digests = []
    for name, content, time, size in (
        ("shard", b"a" * 100, 0, "0"),
        ("shard", b"a" * 100, 0, "28"),
        ("shard", b"a" * 100, 1, "0"),
        ("shard", b"a" * 101, 0, "0"),
        ("other", b"a" * 100, 0, "0"),
    ):
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, ns=(0, time))
        digests.append(cache.files_fingerprint(tmp_path, [name], size))
        assert cache.files_fingerprint(tmp_path, [name], size) == digests[-1]
    assert len(set(digests)) == len(digests)
