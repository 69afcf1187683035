"""Trains the same runs with two versions of the project and compares them bit for bit.

    python tests/golden_runs.py BEFORE AFTER --shared=DATA [--only=mnist.py,digits.py]

BEFORE and AFTER are folders with a checkout each (`git worktree add`). Every run takes 100 steps with default flags, in
a process of its own, with an empty cache. Compared are: the paths of the parameters; the bits of parameters, optimizer
state and average; the training rows (but for the images per second); the evaluation rows, to 1e-6 relative; and the
digest of the evaluated pixels.

`--tolerance=1e-5` accepts leaves that differ by that share of the leaf's largest magnitude, for a change of the form of
a compiled program.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

CONFIGS = {
    "digits.py": [],
    "mnist.py": [],
    "mnist_autoencoder.py": [],
    "mnist_beta.py": [],
    "mnist_conditional.py": [],
    "mnist_conv.py": [],
    "mnist_iaf.py": [],
    "mnist_iwae.py": [],
    "mnist_iwae_2layer.py": [],
    "mnist_vamp.py": [],
    # An average of the parameters, several seeds, parts of a batch, binarization that stays.
    "digits.py average": ["--config.train.ema_decay=0.99", "--config.data.binarization=fixed"],
    "digits.py replicas": ["--config.num_seeds=2"],
    "digits.py parts": ["--config.train.accumulation=2", "--config.train.clip_norm=1."],
    "cifar10.py": [
        "--config.data.source=npz",
        "--config.data.path={shared}/cifar10_8k.npz",
        "--config.train.batch_size=32",
    ],
}
STEPS = 100


def main() -> int:
    """Runs and compares everything; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=pathlib.Path)
    parser.add_argument("after", type=pathlib.Path)
    parser.add_argument("--shared", required=True, help="folder with tfds/ (MNIST) and cifar10_8k.npz")
    parser.add_argument("--only", default="", help="names of runs, separated by commas")
    parser.add_argument("--tolerance", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(CONFIGS)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            found = []
            for version in ("before", "after"):
                workdir = pathlib.Path(folder, version, name.replace(" ", "_"))
                train(getattr(options, version).resolve(), workdir, name, options)
                found.append(workdir)
            problems = compare(*found, options.tolerance)
            failed += bool(problems)
            print(f"{name}: {'the same' if not problems else '; '.join(problems)}", flush=True)
    return int(failed > 0)


def train(checkout: pathlib.Path, workdir: pathlib.Path, name: str, options: argparse.Namespace) -> None:
    """Trains a run of a checkout, and leaves the digest of its evaluated pixels in `pixels.json`."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))},
        "PYTHONPATH": str(checkout),
        "XDG_CACHE_HOME": str(workdir.parent / "cache" / workdir.name),
    }
    arguments = [
        f"--config={checkout / 'configs' / name.split()[0]}",
        f"--workdir={workdir}",
        f"--config.train.num_steps={options.steps}",
        "--config.train.report=False",
        *([] if "cifar" in name or "digits" in name else [f"--config.data.dir={options.shared}/tfds"]),
        *(argument.format(shared=options.shared) for argument in CONFIGS[name]),
    ]
    for code, given in (("from vae_jax.cli import main; main()", arguments), (PIXELS, [str(workdir)])):
        ran = subprocess.run(
            [sys.executable, "-c", code, *given], cwd=checkout, env=environment, capture_output=True, text=True
        )
        if ran.returncode:
            sys.exit(f"{name} of {checkout} ended with {ran.returncode}:\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}")


PIXELS = """
import hashlib, json, pathlib, sys
import numpy as np
from vae_jax import build
try:
    from vae_jax.runs import RunFolder
except ImportError:
    from vae_jax.runs.folder import RunFolder
workdir = pathlib.Path(sys.argv[1])
data = build.build_data(RunFolder(workdir).read_config())
digests = {}
for split in ("validation", "test"):
    try:
        part = data.for_evaluation(split)
    except Exception:
        continue
    digests[split] = hashlib.sha256(np.ascontiguousarray(np.asarray(part.images)).tobytes()).hexdigest()
(workdir / "pixels.json").write_text(json.dumps(digests))
"""


def compare(before: pathlib.Path, after: pathlib.Path, tolerance: float) -> list[str]:
    """What differs between two runs, in words."""
    problems = []
    old, new = (leaves(workdir) for workdir in (before, after))
    if old.keys() != new.keys():
        return [f"paths differ: {sorted(old.keys() ^ new.keys())[:6]}"]
    for path in old:
        if old[path].tobytes() == new[path].tobytes():
            continue
        scale = float(np.max(np.abs(old[path]), initial=0.0)) or 1.0
        distance = float(np.max(np.abs(old[path].astype(np.float64) - new[path]))) / scale
        if not distance <= tolerance:
            problems.append(f"{path} differs by {distance:.2g} of its largest magnitude")
    problems = problems[:3] + ([f"and {len(problems) - 3} more leaves"] if len(problems) > 3 else [])
    rows_before, rows_after = (rows(workdir) for workdir in (before, after))
    if [key(row) for row in rows_before] != [key(row) for row in rows_after]:
        return [*problems, "rows of metrics are of other steps"]
    for one, other in zip(rows_before, rows_after, strict=True):
        allowed = max(tolerance, 0.0 if one["split"] == "train" else 1e-6)
        for name in sorted(one.keys() & other.keys() - {"images_per_second", "digest"}):
            if not near(one[name], other[name], allowed):
                problems.append(f"{name} of {one['split']} at step {one['step']}: {one[name]} became {other[name]}")
    if (before / "pixels.json").read_text() != (after / "pixels.json").read_text():
        problems.append("the evaluated pixels differ")
    return problems


def leaves(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of the newest checkpoint, by their paths; read with Orbax alone."""
    import jax
    import orbax.checkpoint as ocp

    newest = max((workdir / "checkpoints").glob("[0-9]*"), key=lambda folder: int(folder.name))
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore((newest / "state").resolve())
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def rows(workdir: pathlib.Path) -> list[dict]:
    """The rows of metrics."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def key(row: dict) -> tuple[str, int]:
    return row["split"], row["step"]


def near(one: object, other: object, allowed: float) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(near(one[name], other[name], allowed) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(near, one, other, [allowed] * len(one)))
    if isinstance(one, float) and isinstance(other, float):
        return one == other or math.isclose(one, other, rel_tol=allowed)
    return one == other


if __name__ == "__main__":
    sys.exit(main())
