"""Breaks the package in ten known ways, one at a time, and checks that pytest notices each.

    python tests/mutations.py [--all] [--only=NUMBER]

Each mutation is made in a copy of the project. First the test runs that is meant to catch it, which is among those that
plain `pytest` runs; with `--all` plain `pytest -x` runs instead. Exit status 1 if a mutation goes unnoticed.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple


class Mutation(NamedTuple):
    """A change of one file, and the test that has to fail with it.

    Attributes:
        what: In words.
        file: Which is changed.
        old: Text that stands there once.
        new: What takes its place.
        test: File of the test.
        more: Further pairs of old and new.
    """

    what: str
    file: str
    old: str
    new: str
    test: str
    more: tuple[tuple[str, str], ...] = ()


GAUSSIAN = "vae_jax/posteriors/diagonal_gaussian.py"
MUTATIONS = (
    Mutation(
        "the sign of the KL",
        GAUSSIAN,
        "        return kl_to_standard_normal(*map(self._flat, parameters))",
        "        return -kl_to_standard_normal(*map(self._flat, parameters))",
        "tests/posteriors/test_diagonal_gaussian.py",
    ),
    Mutation(
        "a factor 0.5 missing in the KL",
        GAUSSIAN,
        "return 0.5 * (",
        "return (",
        "tests/posteriors/test_diagonal_gaussian.py",
    ),
    Mutation(
        "the same noise in every step",
        "vae_jax/training/step.py",
        "stream_key(key, Stream.POSTERIOR_NOISE, state.step)",
        "stream_key(key, Stream.POSTERIOR_NOISE, 0)",
        "tests/training/test_step.py",
    ),
    Mutation(
        "the encoder's output read as variance",
        GAUSSIAN,
        "z = parameters.mean + jnp.exp(0.5 * parameters.logvar) * noise",
        "z = parameters.mean + jnp.sqrt(jnp.abs(parameters.logvar)) * noise",
        "tests/posteriors/test_diagonal_gaussian.py",
    ),
    Mutation(
        "IWAE with a mean instead of logsumexp",
        "vae_jax/objectives/importance_weighted.py",
        "jax.nn.logsumexp(log_weights, axis=0) - jnp.log(log_weights.shape[0])",
        "jnp.mean(log_weights, axis=0)",
        "tests/objectives/test_importance_weighted.py",
    ),
    Mutation(
        "one batch skipped at resume",
        "vae_jax/cli/training_run.py",
        "return None if found is None else checkpoints.load(found, like)",
        "return None if found is None else (lambda s: s.replace(step=s.step + 1))(checkpoints.load(found, like))",
        "tests/cli/test_resume.py",
    ),
    Mutation(
        "the data in the same order in each epoch",
        "vae_jax/data/order.py",
        "steps // steps_per_epoch)",
        "0 * steps)",
        "tests/data/test_order.py",
    ),
    Mutation(
        "the raw parameters evaluated instead of their average",
        "vae_jax/training/step.py",
        "params = self.params if self.average is None else self.average",
        "params = self.params",
        "tests/training/test_step.py",
    ),
    Mutation(
        "a checkpoint that is not written atomically",
        "vae_jax/runs/checkpoints.py",
        'unfinished = directory / f"{_UNFINISHED}{step}"',
        "unfinished = directory / str(step)",
        "tests/test_checkpoints.py",
        (("            if final.exists():\n                _remove(final)\n", ""),),
    ),
    Mutation(
        "binarization of evaluated images drawn anew in each call",
        "vae_jax/data/binarization.py",
        "np.random.SeedSequence([seed, Stream.FIXED_BINARIZATION, part])",
        "np.random.SeedSequence()",
        "tests/data/test_binarization.py",
    ),
)
COPIED = ("vae_jax", "tests", "configs", "docs", "main.py", "pyproject.toml", "README.md", "constraints.txt")


def main() -> int:
    """Tries the mutations; 1 if one goes unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="run plain pytest -x for each, which takes minutes")
    parser.add_argument("--only", type=int, help="number of one mutation, from 1")
    options = parser.parse_args()
    project = pathlib.Path(__file__).parents[1]
    unnoticed = 0
    for number, mutation in enumerate(MUTATIONS, start=1):
        if options.only in (None, number):
            noticed = is_noticed(project, mutation, options.all)
            unnoticed += not noticed
            print(f"{number:2} {mutation.what}: {'noticed' if noticed else 'NOT NOTICED'}", flush=True)
    return int(unnoticed > 0)


def is_noticed(project: pathlib.Path, mutation: Mutation, everything: bool) -> bool:
    """Whether pytest fails on a copy of the project with the mutation, and not for another reason."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, "project")
        copy.mkdir()
        for name in COPIED:
            if (project / name).is_dir():
                shutil.copytree(project / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(project / name, copy / name)
        file = copy / mutation.file
        text = file.read_text()
        for old, new in ((mutation.old, mutation.new), *mutation.more):
            if text.count(old) != 1:
                sys.exit(f"{mutation.file} has {text.count(old)} places {old!r}; mend the mutation")
            text = text.replace(old, new)
        file.write_text(text)
        tests = [] if everything else [mutation.test, "-n", "0"]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        # 1: tests failed. Anything else, such as 2 for an error while they were collected, proves nothing.
        if ran.returncode not in (0, 1):
            sys.exit(f"pytest ended with {ran.returncode}:\n{ran.stdout[-3000:]}")
        return ran.returncode == 1


if __name__ == "__main__":
    sys.exit(main())
