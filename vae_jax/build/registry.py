"""From a name in a config to one of our parts, or to a custom part of the user."""

import contextlib
import difflib
import importlib
import os
import pathlib
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vae_jax.errors import UserError
from vae_jax.escaping import one_line

# Frames of Python, of installed packages and of this package: everything but the user's code.
_NOT_THE_USERS = (
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(pathlib.Path(__file__).parents[1]) + os.sep,
    "<",
)


def choose(field: str, name: str, members: Iterable[str]) -> Any:
    """The member with this name, or the name itself where `members` is no mapping.

    Raises:
        UserError: If there is no such member; it names the closest.
    """
    if name not in members:
        raise _unknown(field, name, members, "")
    return members[name] if isinstance(members, Mapping) else name


def choose_or_import(field: str, name: str, members: Mapping[str, Any]) -> Any:
    """The member with this name, or the object that `package.module:Name` refers to.

    Raises:
        UserError: If there is no such member or object, with the closest name, or the import fails.
    """
    if name in members:
        return members[name]
    if not is_custom(name):
        raise _unknown(field, name, members, ", or name a custom part: package.module:Name")
    module_name, _, attribute = name.partition(":")
    with custom_errors({field: name}):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise UserError(
                f"'{field}' is {name!r}, but there is no module '{error.name}'; add its folder to PYTHONPATH"
            ) from error
    if not hasattr(module, attribute):
        known = [known for known in vars(module) if not known.startswith("_")]
        raise UserError(
            f"'{field}' is {name!r}, but module '{module_name}' has no '{attribute}'; {_closest(attribute, known)}"
            "name an object of that module"
        )
    return getattr(module, attribute)


def make(field: str, name: str, members: Mapping[str, Any], *arguments: Any) -> Any:
    """Calls the member with this name, or the custom part.

    Raises:
        UserError: If there is no such member, or a custom part raises anything.
    """
    factory = choose_or_import(field, name, members)
    with custom_errors({field: name}):
        return factory(*arguments)


def is_custom(name: str) -> bool:
    """Whether a name refers to a custom part, `package.module:Name`."""
    return ":" in name


@contextlib.contextmanager
def custom_errors(parts: Mapping[str, str]) -> Iterator[None]:
    """Shows any exception in one line with the user's own file and line, where a part in use is a custom one.

    Args:
        parts: Config fields and the names they have.

    Raises:
        UserError: In place of any exception, if at least one of the names is custom.
    """
    custom = ", ".join(f"'{field}' {name!r}" for field, name in parts.items() if is_custom(name))
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if not custom:
            raise
        users = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith(_NOT_THE_USERS)
        ]
        place = f" ({pathlib.Path(users[-1].filename).name}:{users[-1].lineno})" if users else ""
        raise UserError(f"{custom} failed: {type(error).__name__}: {one_line(error)}{place}; correct it") from error


def _unknown(field: str, name: str, members: Iterable[str], more: str) -> UserError:
    return UserError(
        f"config field '{field}' is {name!r}; {_closest(name, members)}choose from {', '.join(members)}{more}"
    )


def _closest(name: str, members: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, members, n=1, cutoff=0.4)
    return f"did you mean '{close[0]}'? " if close else ""
