"""Finds the verb, and turns errors into one line and an exit status."""

import importlib
import logging
import pathlib
import sys
import types
from typing import NoReturn

from absl import flags

from vae_jax.cli.flags import parse, usage
from vae_jax.cli.signals import STOPPED_STATUS
from vae_jax.cli.terminal import print_any_letter, print_error, put_out
from vae_jax.errors import DataError, Stopped, UserError
from vae_jax.printable import one_line, printable

VERBS = {
    "train": "train a model, or continue a run (the default verb)",
    "evaluate": "measure the bound and log p(x) of a trained model",
    "diagnose": "say why a trained model is as good, or as blurry, as it is",
    "sample": "draw images from a trained model",
    "reconstruct": "encode images of a split and decode them again",
    "encode": "write the latents of images to a file",
    "decode": "make images of latents in a file",
    "interpolate": "show what lies between images in the space of latents",
    "report": "put a run, or several side by side, on one HTML page",
    "score": "sort images by log p(x), the strangest first",
    "export": "make a folder of a trained model that others can use without this package",
    "benchmark": "measure how fast the training step of a config is, and where its time goes",
    "plan": "compile the training step for a TPU slice that needn't be there: does it fit, how fast could it be",
}
USER_ERROR_STATUS = 2


def run(argv: list[str] | None = None) -> None:
    """Runs a verb and exits; see `vae_jax.cli.main`."""
    if argv is None:
        print_any_letter()
        _warn_plainly()
    try:
        _run(sys.argv[1:] if argv is None else argv)
    except Stopped as stopped:
        print_error(f"vae-jax: {stopped}")
        sys.exit(STOPPED_STATUS)
    except (UserError, flags.Error) as error:
        _refuse(" ".join(str(error).split()))
    except BrokenPipeError:
        # Whoever read our output has closed it, as `head` does: nobody is left to tell.
        sys.stdout = None
        sys.exit(0)
    except OSError as error:
        # Whoever reads or writes a file says what it was for; a name that can be none is noticed anywhere.
        name = one_line(error.filename, 100) if error.filename else "a file or folder"
        _refuse(f"{name} can't be used ({error.strerror or one_line(error)}); name another one")
    except MemoryError as error:
        _refuse(f"the memory doesn't suffice ({one_line(error)}); ask for less at once, or use a larger machine")


def _refuse(message: str) -> NoReturn:
    print_error(f"vae-jax: error: {printable(message)}")
    _leave(USER_ERROR_STATUS)


def _warn_plainly() -> None:
    """Shows this package's warnings as lines for people, whatever some library has made of logging."""
    logger, handler = logging.getLogger("vae_jax"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("vae-jax: warning: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False


def _run(arguments: list[str]) -> None:
    has_verb = bool(arguments) and not arguments[0].startswith("-")
    verb, rest = (arguments[0], arguments[1:]) if has_verb else ("train", arguments)
    if verb not in VERBS:
        raise UserError(f"there is no verb '{verb}'; choose from {', '.join(VERBS)}, or see --help")
    module = _module(verb)
    if any(argument in ("--help", "-h", "-help", "--helpfull") for argument in rest):
        put_out(usage(pathlib.Path(sys.argv[0]).name, verb, module, VERBS, brief=not has_verb))
        return
    values = parse(module, rest)
    # Here, since it takes JAX, which those who only ask for help need not wait for.
    from vae_jax.cli.compilation import remember_compiled

    remember_compiled()
    try:
        module.run(values)
    except DataError as error:
        if "config" in values:
            raise
        # This verb takes no setting: what a run reads is said in its own folder.
        raise UserError(
            f"{error.cause}; repair or bring back what the run was trained on; where that is says data in its "
            "config.json"
        ) from error


def _leave(status: int) -> NoReturn:
    # Without JAX there can't be other processes that would have to be told.
    if "jax" in sys.modules:
        from vae_jax.processes import leave

        leave(status)
    sys.exit(status)


def _module(verb: str) -> types.ModuleType:
    return importlib.import_module(f"vae_jax.cli.{verb}")
