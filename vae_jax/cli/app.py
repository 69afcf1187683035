"""Runs a verb, and turns errors into one line and an exit status."""

import importlib
import io
import logging
import pathlib
import sys
from typing import NamedTuple, NoReturn

from absl import flags

from vae_jax.cli.flags import describe_flags, parse
from vae_jax.cli.signals import STOPPED_STATUS
from vae_jax.cli.terminal import print_lines
from vae_jax.errors import Stopped, UserError
from vae_jax.escaping import one_line, printable

USER_ERROR_STATUS = 2


class Verb(NamedTuple):
    """A line of `--help`; the module `vae_jax.cli.VERB` defines the verb's flags (`define`) and runs it (`run`)."""

    help: str
    example: str


VERBS = {
    "train": Verb("train a model, or continue a run (the default)", "--config=configs/mnist.py --workdir=runs/mnist"),
    "parts": Verb("list networks, likelihoods, posteriors, ...; or explain one", "iaf"),
    "evaluate": Verb("estimate the bound and log p(x) of test images", "--workdir=runs/mnist --num_samples=5000"),
    "diagnose": Verb("explain what limits the bound and the sharpness of a model", "--workdir=runs/mnist"),
    "report": Verb("write an HTML page about a run, or comparing runs", "--workdir=runs/mnist --workdir=runs/other"),
    "sample": Verb("draw images from the model", "--workdir=runs/mnist --num_images=100"),
    "reconstruct": Verb("encode and decode images", "--workdir=runs/mnist --split=test"),
    "encode": Verb("write the latents of images to a file", "--workdir=runs/mnist --input=pictures"),
    "decode": Verb("make images from the latents in a file", "--workdir=runs/mnist --latents=latents.npz"),
    "interpolate": Verb("show images between pairs of images", "--workdir=runs/mnist --steps=8"),
    "score": Verb("sort images by log p(x), the most unusual first", "--workdir=runs/mnist --input=pictures"),
    "export": Verb("write a model that runs without this package", "--workdir=runs/mnist --output=exported/mnist"),
    "benchmark": Verb("measure the speed and memory of training", "--config=configs/mnist.py --image_shape=28,28,1"),
    "plan": Verb(
        "compile training for a TPU that isn't here: does it fit, how fast is it",
        "--topology=v6e:2x4 --config=configs/mnist.py",
    ),
}


def run(argv: list[str] | None = None) -> None:
    """Runs a verb and exits; see `vae_jax.cli.main`."""
    if argv is None:
        _set_up_output()
    try:
        _run(sys.argv[1:] if argv is None else argv)
    except Stopped as stopped:
        print(f"vae-jax: {stopped}", file=sys.stderr)
        sys.exit(STOPPED_STATUS)
    except (UserError, flags.Error) as error:
        _exit_with(" ".join(str(error).split()))
    except OSError as error:
        # Most errors of files are caught where the file's purpose is known.
        name = one_line(error.filename, 100) if error.filename else "a file or folder"
        _exit_with(f"{name} can't be used ({error.strerror or one_line(error)}); choose another one")
    except MemoryError as error:
        _exit_with(f"out of memory ({one_line(error)}); ask for less at once, or use a larger machine")


def _run(arguments: list[str]) -> None:
    has_verb = bool(arguments) and not arguments[0].startswith("-")
    verb, rest = (arguments[0], arguments[1:]) if has_verb else ("train", arguments)
    if verb not in VERBS:
        raise UserError(f"there is no verb '{verb}'; choose from {', '.join(VERBS)}, or see --help")
    wants_help = not {"--help", "-h", "-help", "--helpfull"}.isdisjoint(rest)
    program = pathlib.Path(sys.argv[0]).name
    if wants_help and not has_verb:
        print_lines(_overview(program))
        return
    module = importlib.import_module(f"vae_jax.cli.{verb}")
    if wants_help:
        example = f"{program} {verb} {VERBS[verb].example}"
        print_lines(f"usage: {program} {verb} [--flag=value ...]\n\n{VERBS[verb].help}\n\nexample: {example}\n")
        print_lines(describe_flags(module))
        return
    values = parse(module, rest)
    # Imported late, because --help doesn't need JAX, which takes seconds to import.
    from vae_jax.cli.compilation import cache_compiled_programs

    cache_compiled_programs()
    module.run(values)


def _overview(program: str) -> str:
    lines = [f"usage: {program} [VERB] [--flag=value ...]", "", "verbs:"]
    lines += [f"  {name:<12} {verb.help}" for name, verb in VERBS.items()]
    lines += ["", "examples:", f"  {program}    (trains on the digits that come with scikit-learn)"]
    lines += [f"  {program} {name} {VERBS[name].example}" for name in ("train", "evaluate", "sample", "report")]
    lines += ["", f"'{program} VERB --help' lists the flags of a verb, '{program} train --help' all settings too."]
    return "\n".join(lines)


def _exit_with(message: str) -> NoReturn:
    print(f"vae-jax: error: {printable(message)}", file=sys.stderr, flush=True)
    # Without JAX this is the only process.
    if "jax" in sys.modules:
        from vae_jax.processes import leave

        leave(USER_ERROR_STATUS)
    sys.exit(USER_ERROR_STATUS)


def _set_up_output() -> None:
    """Shows this package's warnings as plain lines, and `?` for characters that the locale lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    logger, handler = logging.getLogger("vae_jax"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("vae-jax: warning: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
