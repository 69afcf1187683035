"""How a name in a config becomes the member it stands for, or a custom object."""

import difflib
import importlib
import os
import pathlib
import sysconfig
import traceback
import types
from collections.abc import Iterable, Mapping
from typing import Any

from vae_jax.errors import UserError
from vae_jax.printable import one_line


def choose(field: str, name: str, members: Mapping[str, Any]) -> Any:
    """The member of that name.

    Raises:
        UserError: If there is none, with the closest name there is.
    """
    if name not in members:
        raise _unknown(field, name, members, "")
    return members[name]


def choose_or_import(field: str, name: str, members: Mapping[str, Any]) -> Any:
    """The member of that name, or the object that `package.module:Name` leads to.

    Raises:
        UserError: If there is none, with the closest name there is, or it can't be imported, with the reason.
    """
    if name in members:
        return members[name]
    if ":" not in name:
        raise _unknown(field, name, members, ", or name a custom one, package.module:Name")
    module_name, _, attribute = name.partition(":")
    module = _imported(field, name, module_name)
    if not hasattr(module, attribute):
        known = [known for known in vars(module) if not known.startswith("_")]
        raise UserError(
            f"'{field}' is {name!r}, but module '{module_name}' has no '{attribute}'; {_meant(attribute, known)}name "
            "what it has, package.module:Name"
        )
    return getattr(module, attribute)


def make(field: str, name: str, members: Mapping[str, Any], *arguments: Any) -> Any:
    """What the member of that name makes of some arguments.

    Raises:
        UserError: If there is none, or a custom one can't be called so.
    """
    factory = choose_or_import(field, name, members)
    if name in members:
        return factory(*arguments)
    kinds = ", ".join(type(argument).__name__ for argument in arguments)
    return call_custom(f"'{field}' {name!r}", f"called with ({kinds})", factory, *arguments)


def is_custom(name: str) -> bool:
    """Whether a name stands for a custom object."""
    return ":" in name


def call_custom(part: str, doing: str, function: Any, *arguments: Any) -> Any:
    """Calls what a user wrote, which can raise anything.

    Args:
        part: What it is, for the error.
        doing: What is asked of it, for the error.
        function: To call.
        arguments: What with.

    Raises:
        UserError: In place of any exception: its message, and where in the user's module it came from.
    """
    try:
        return function(*arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{part}, {doing}, fails: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """An exception in one line: type, message, and the last place of the user's own that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_OTHERS)]
    place = f" ({pathlib.Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {one_line(error)}{place}"


# Of Python, of packages that are installed, and our own.
_OTHERS = (
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(pathlib.Path(__file__).parents[1]) + os.sep,
    "<",
)


def _imported(field: str, name: str, module: str) -> types.ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        # It is a program of the user's: it can raise anything.
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
        if missing and f"{module}.".startswith(f"{missing}."):
            raise UserError(
                f"'{field}' is {name!r}, but there is no module '{missing}'; its folder has to be on PYTHONPATH"
            ) from error
        raise UserError(
            f"'{field}' is {name!r}, but module '{module}' can't be imported: {describe(error)}; mend that module"
        ) from error


def _unknown(field: str, name: str, members: Iterable[str], more: str) -> UserError:
    return UserError(
        f"config field '{field}' is {name!r}; {_meant(name, members)}choose from {', '.join(members)}{more}"
    )


def _meant(name: str, members: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, members, n=1, cutoff=0.4)
    return f"did you mean '{close[0]}'? " if close else ""
