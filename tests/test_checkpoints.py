"""Checkpoints come back bit for bit, no damage passes unseen, and the newest and the best are kept."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from on_disk import HARMS
from trees import assert_same_bits

from vae_jax.errors import UserError
from vae_jax.runs import checkpoints


def tree(seed: int = 0) -> dict:
    """Numbers that a careless format would lose."""
    rng = np.random.default_rng(seed)
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38], np.float32)
    return {
        "params": {"kernel": jnp.asarray(rng.normal(size=(40, 30)), jnp.float32), "bias": jnp.asarray(special)},
        "half": jnp.asarray(rng.normal(size=7), jnp.bfloat16),
        "step": jnp.int32(12345),
    }


def small() -> dict:
    return {"w": jnp.arange(3.0), "step": jnp.int32(1)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("runs") / "checkpoints"
    checkpoints.save(directory, 3, tree(), score=-1.5, keep=1)
    return directory


@pytest.mark.smoke
def test_tree_comes_back_bit_for_bit(saved: pathlib.Path) -> None:
    checkpoint = checkpoints.choose(saved, "latest")
    assert (checkpoint.step, checkpoint.score) == (3, -1.5)
    assert_same_bits(checkpoints.load(checkpoint, jax.eval_shape(tree)), tree())
    assert_same_bits(checkpoints.load(checkpoint), tree())


def test_full_disk_is_noticed_before_anything_is_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(tmp_path, 1, small(), None, keep=2)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**19))
    with pytest.raises(UserError, match=r"1\.0 MB are needed, 0\.5 MB are free.*make room"):
        checkpoints.save(tmp_path, 2, small(), None, keep=2)
    monkeypatch.undo()
    checkpoints.save(tmp_path, 3, small(), None, keep=2)
    assert [checkpoint.step for checkpoint in checkpoints.listing(tmp_path)] == [1, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3"]


def test_what_was_cut_off_is_ignored_and_cleaned_up(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint gets its name only when it is whole, and loses it before it is removed."""

    def killed(folder: pathlib.Path) -> None:
        raise KeyboardInterrupt

    for module, name, left in ((checkpoints, "checksums", 1), (shutil, "rmtree", 2)):
        checkpoints.save(tmp_path, 1, small(), None, keep=1)
        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            context.setattr(module, name, killed)
            checkpoints.save(tmp_path, 2, small(), None, keep=1)
        assert [checkpoint.step for checkpoint in checkpoints.listing(tmp_path)] == [left]
        assert (tmp_path / "2").exists() == (left == 2)
    checkpoints.save(tmp_path, 3, small(), None, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


@pytest.mark.parametrize("harm", HARMS)
def test_damage_of_any_file_is_noticed(saved: pathlib.Path, tmp_path: pathlib.Path, harm) -> None:
    files = sorted(checkpoints.choose(saved, "latest").files)
    assert len(files) > 3
    for number, name in enumerate(files):
        copy = shutil.copytree(saved, tmp_path / str(number))
        checkpoint = checkpoints.choose(copy, "latest")
        victim = checkpoint.folder / "state" / name
        if victim.stat().st_size == 0 and harm is not pathlib.Path.unlink:
            continue
        harm(victim)
        with pytest.raises(UserError, match="is damaged") as caught:
            checkpoints.load(checkpoint)
        assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": 3}', "null"])
def test_checkpoint_with_a_damaged_record_is_none(saved: pathlib.Path, tmp_path: pathlib.Path, content: str) -> None:
    copy = shutil.copytree(saved, tmp_path / "copy")
    (copy / "3" / "checkpoint.json").write_text(content)
    assert checkpoints.listing(copy) == []


def test_newest_and_best_are_kept(tmp_path: pathlib.Path) -> None:
    for step, score in [(1, -3.0), (8, -1.0), (9, -1.0), (10, -2.5), (11, -4.0)]:
        checkpoints.save(tmp_path, step, small(), score, keep=2)
    kept = checkpoints.listing(tmp_path)
    # Of equally good ones the later is the best.
    assert [checkpoint.step for checkpoint in kept] == [9, 10, 11]
    assert checkpoints.choose(tmp_path, "best").step == 9
    assert checkpoints.choose(tmp_path, "latest").step == 11
    assert checkpoints.choose(tmp_path, "10").step == 10


def test_same_step_is_replaced(tmp_path: pathlib.Path) -> None:
    checkpoints.save(tmp_path, 1, small(), None, keep=1)
    other = jax.tree.map(lambda leaf: leaf + 1, small())
    checkpoints.save(tmp_path, 1, other, None, keep=1)
    assert_same_bits(checkpoints.load(checkpoints.choose(tmp_path, "1")), other)


OTHERS = {
    "another model than the config": {"more": jax.ShapeDtypeStruct((2,), jnp.float32)},
    r"half is bfloat16\[7\] there and bfloat16\[8\] here": {"half": jax.ShapeDtypeStruct((8,), jnp.bfloat16)},
}


@pytest.mark.parametrize("words", OTHERS)
def test_another_model_is_refused(saved: pathlib.Path, words: str) -> None:
    with pytest.raises(UserError, match=words):
        checkpoints.load(checkpoints.choose(saved, "latest"), jax.eval_shape(tree) | OTHERS[words])


@pytest.mark.parametrize(("which", "mend"), [("7", "latest, best or one of 3"), ("newest", "latest, best")])
def test_unknown_checkpoint_brings_those_there_are(saved: pathlib.Path, tmp_path: pathlib.Path, which, mend) -> None:
    with pytest.raises(UserError, match=mend):
        checkpoints.choose(saved, which)
    with pytest.raises(UserError, match="train first"):
        checkpoints.choose(tmp_path, which)
