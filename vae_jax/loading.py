"""`load`: opens a trained model from the folder of a run or from an exported folder."""

import pathlib

from vae_jax.errors import UserError
from vae_jax.export import is_export, read_export
from vae_jax.trained import TrainedModel, open_run


def load(
    path: str | pathlib.Path, *, checkpoint: str | int = "latest", replica: int = 0, allow_custom: bool = False
) -> TrainedModel:
    """Opens the folder of a run, or one that `export` made.

    Neither the training data nor an accelerator is needed. Nothing in the folder is unpickled or run; its files are
    verified by their checksums.

    >>> import contextlib, io, tempfile, jax, vae_jax
    >>> from vae_jax.cli import main
    >>> folder = tempfile.TemporaryDirectory()
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     main(["train", f"--workdir={folder.name}/run", "--config.train.num_steps=20"])
    ...     main(["export", f"--workdir={folder.name}/run", f"--output={folder.name}/exported"])
    >>> model = vae_jax.load(f"{folder.name}/exported")
    >>> images = vae_jax.load_digits(test_fraction=0.2, seed=0).test_images
    >>> model.encode(images).shape
    (359, 10)
    >>> model.reconstruct(images).shape
    (359, 8, 8, 1)
    >>> model.sample(jax.random.key(0), 3).shape
    (3, 8, 8, 1)
    >>> bool((vae_jax.load(f"{folder.name}/run").encode(images) == model.encode(images)).all())
    True
    >>> folder.cleanup()

    Args:
        path: The folder.
        checkpoint: Of a run: a step, `best` or `latest`.
        replica: Of a run: which of the models that were trained together.
        allow_custom: Whether parts named `package.module:Name` may be imported. That runs their code, so allow it only
            for a folder from somebody you trust.

    Raises:
        UserError: If the folder, checkpoint or replica isn't there, it is damaged, or it needs parts that may not be
            imported.
    """
    folder = pathlib.Path(path).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "isn't there"
        raise UserError(f"'{path}' {what}; give the folder of a run, or one that export made")
    if not is_export(folder):
        return open_run(str(folder), str(checkpoint), replica, allow_custom)
    if str(checkpoint) != "latest" or replica:
        raise UserError(f"'{path}' was exported and holds one model: leave checkpoint and replica out")
    return read_export(folder, allow_custom)
