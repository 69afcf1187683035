"""Finds the verb, and turns errors into one line and an exit status."""

import importlib
import logging
import pathlib
import sys
import types

from absl import flags

from vae_jax.cli.flags import parse, usage
from vae_jax.cli.signals import STOPPED_STATUS, end_at_once
from vae_jax.cli.terminal import put_out
from vae_jax.errors import DataError, Stopped, UserError
from vae_jax.printable import printable

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


def main(argv: list[str] | None = None) -> None:
    """Runs a verb and exits.

    Args:
        argv: The arguments after the program's name; those of the process if None.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if argv is None:
        _warn_plainly()
        _hush_late_reads()
        end_at_once()
    try:
        _run(arguments)
    except Stopped as stopped:
        print(f"vae-jax: {stopped}", file=sys.stderr)
        sys.exit(STOPPED_STATUS)
    except (UserError, flags.Error) as error:
        message = printable(" ".join(str(error).split()))
        print(f"vae-jax: error: {message}", file=sys.stderr)
        _leave(USER_ERROR_STATUS)
    except BrokenPipeError:
        # Whoever read our output has closed it, as `head` does: nobody is left to tell.
        sys.stdout = None
        sys.exit(0)


def _warn_plainly() -> None:
    """Shows this package's warnings as lines for people, whatever some library has made of logging."""
    logger, handler = logging.getLogger("vae_jax"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("vae-jax: warning: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False


def _hush_late_reads() -> None:
    """Says nothing of reads of a checkpoint that come back after the first one that failed, which is told.

    They find their event loop closed, and nobody who could catch what they raise.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda _: None


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


def _leave(status: int) -> None:
    # Without JAX there can't be other processes that would have to be told.
    if "jax" in sys.modules:
        from vae_jax.processes import leave

        leave(status)
    sys.exit(status)


def _module(verb: str) -> types.ModuleType:
    return importlib.import_module(f"vae_jax.cli.{verb}")
