"""What is kept is what comes back, and whatever happens to the files costs time, never a pixel."""

import errno
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from vae_jax.data import cache
from vae_jax.data.dataset import Dataset, fingerprint


@pytest.fixture(autouse=True)
def own_user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "vae_jax"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def make_dataset(labels: bool = True, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    arrays = (
        rng.integers(0, 256, (5, 4, 3, 1), dtype=np.uint8),
        rng.integers(0, 256, (2, 4, 3, 1), dtype=np.uint8),
        rng.integers(0, 10, 5, dtype=np.int32) if labels else None,
        rng.integers(0, 10, 2, dtype=np.int32) if labels else None,
    )
    return Dataset("some", *arrays, max_value=255, fingerprint=fingerprint(*arrays))


def assert_same(loaded: Dataset | None, saved: Dataset) -> None:
    assert loaded is not None
    assert (loaded.name, loaded.max_value, loaded.fingerprint) == (
        saved.name,
        saved.max_value,
        saved.fingerprint,
    )
    for name in ("train_images", "test_images", "train_labels", "test_labels"):
        one, other = getattr(loaded, name), getattr(saved, name)
        if other is None:
            assert one is None
        else:
            np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("labels", [True, False])
def test_a_saved_data_set_comes_back_read_only(data_dir: Path, labels: bool) -> None:
    dataset = make_dataset(labels)
    cache.save(data_dir, "key", dataset)
    loaded = cache.load(data_dir, "key")
    assert_same(loaded, dataset)
    assert loaded is not None and not loaded.train_images.flags.writeable
    assert [path.name for path in (data_dir / ".vae_jax_cache").iterdir()] == ["key"]


def test_an_absent_key_is_none_without_a_word(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.save(data_dir, "key", make_dataset())
    assert cache.load(data_dir, "other") is None
    assert not caplog.records


def flip_a_bit(folder: Path) -> None:
    path = folder / "train_images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    path = folder / "train_images.npy"
    path.write_bytes(path.read_bytes()[:-1])


def empty(folder: Path) -> None:
    (folder / "test_labels.npy").write_bytes(b"")


def remove_an_array(folder: Path) -> None:
    (folder / "test_images.npy").unlink()


def pickle_an_array(folder: Path) -> None:
    np.save(folder / "test_labels.npy", np.array([{}], dtype=object), allow_pickle=True)


def break_the_facts(folder: Path) -> None:
    (folder / "dataset.json").write_text("{")


def change_the_format(folder: Path) -> None:
    facts = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**facts, "format": 0}))


@pytest.mark.parametrize(
    "damage",
    [flip_a_bit, truncate, empty, remove_an_array, pickle_an_array, break_the_facts, change_the_format],
)
def test_damage_is_seen_and_mended(data_dir: Path, damage, caplog: pytest.LogCaptureFixture) -> None:
    dataset = make_dataset()
    cache.save(data_dir, "key", dataset)
    damage(data_dir / ".vae_jax_cache" / "key")
    assert cache.load(data_dir, "key") is None
    assert len(caplog.records) == 1 and "damaged" in caplog.text
    cache.save(data_dir, "key", dataset)
    assert_same(cache.load(data_dir, "key"), dataset)


def test_the_user_cache_stands_in_for_a_folder_that_cannot_be_written(data_dir: Path, own_user_cache: Path) -> None:
    data_dir.mkdir()
    (data_dir / ".vae_jax_cache").write_text("in the way")
    dataset = make_dataset()
    cache.save(data_dir, "key", dataset)
    assert (own_user_cache / "key" / "dataset.json").is_file()
    assert_same(cache.load(data_dir, "key"), dataset)


def test_without_any_place_a_warning_says_so(
    data_dir: Path, own_user_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for blocked in (data_dir / ".vae_jax_cache", own_user_cache):
        blocked.parent.mkdir(parents=True)
        blocked.write_text("in the way")
    cache.save(data_dir, "key", make_dataset())
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "\n" not in caplog.records[0].getMessage()
    assert cache.load(data_dir, "key") is None


def test_a_full_disk_leaves_what_was_there(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = make_dataset(seed=0)
    cache.save(data_dir, "key", kept)

    def fail(file, array, allow_pickle) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(np, "save", fail)
        cache.save(data_dir, "key", make_dataset(seed=1))
        cache.save(data_dir, "new", make_dataset(seed=1))
    assert_same(cache.load(data_dir, "key"), kept)
    assert cache.load(data_dir, "new") is None
    assert [path.name for path in (data_dir / ".vae_jax_cache").iterdir()] == ["key"]


def test_a_half_written_folder_is_never_read_and_swept_up_later(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = data_dir / ".vae_jax_cache" / ".incomplete-1"
    half.mkdir(parents=True)
    cache.save(data_dir, "key", make_dataset())
    assert half.exists()
    monkeypatch.setattr(cache, "_ABANDONED_AFTER", -1.0)
    cache.save(data_dir, "key", make_dataset())
    assert not half.exists()


@pytest.mark.parametrize("whole", [True, False])
def test_the_digest_of_prepared_data_sees_every_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    if not whole:
        monkeypatch.setattr(cache, "_HASHED_WHOLE", 10)
        monkeypatch.setattr(cache, "_HASHED_ENDS", 4)
    prepared = tmp_path / "1.0.0"
    prepared.mkdir()
    shard = prepared / "shard"
    shard.write_bytes(b"a" * 100)
    digests = [cache.prepared_fingerprint(prepared)]
    assert cache.prepared_fingerprint(prepared) == digests[0]
    for content in (b"b" + b"a" * 99, b"a" * 99 + b"b", b"a" * 101):
        shard.write_bytes(content)
        digests.append(cache.prepared_fingerprint(prepared))
    shard.rename(prepared / "other")
    digests.append(cache.prepared_fingerprint(prepared))
    assert len(set(digests)) == len(digests)
