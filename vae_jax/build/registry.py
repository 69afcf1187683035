"""From a name in a config to one of our parts, or to a custom part of the user."""

import contextlib
import importlib
import inspect
import os
import pathlib
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from vae_jax.errors import UserError
from vae_jax.escaping import one_line
from vae_jax.settings import Part, closest, givens_of, read_part, resolved

# Frames of Python, of installed packages and of this package: everything but the user's code.
_NOT_THE_USERS = (
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(pathlib.Path(__file__).parents[1]) + os.sep,
    "<",
)


def choose_or_import(field: str, name: str, members: Mapping[str, Any]) -> Any:
    """The member with this name, or the object that `package.module:Name` refers to.

    Raises:
        UserError: If there is no such member or object, with the closest name, or the import fails.
    """
    if name in members:
        return members[name]
    if not is_custom(name):
        raise UserError(
            f"config field '{field}' is {name!r}; choose from {', '.join(members)}, or name a custom part: "
            f"package.module:Name{closest(name, members)}"
        )
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
            f"'{field}' is {name!r}, but module '{module_name}' has no '{attribute}'; name an object of that module"
            f"{closest(attribute, known)}"
        )
    return getattr(module, attribute)


def resolve_part(field: str, text: str, members: Mapping[str, Any]) -> str:
    """The text of a part with all of its settings, those that weren't given at their defaults.

    >>> from vae_jax.training import OPTIMIZERS
    >>> resolve_part("train.optimizer", "adamw", OPTIMIZERS)
    'adamw(weight_decay=0.0001, epsilon=1e-08)'

    Raises:
        UserError: If the text can't be read, there is no such part or setting, or a value is out of bounds.
    """
    return str(_found(field, text, members)[1])


def make_part(field: str, text: str, members: Mapping[str, Any], **given: Any) -> Any:
    """The part that a text describes.

    Args:
        field: Config field, for errors.
        text: Name and settings.
        members: The classes by name.
        given: What parts may take from others; each gets those that it has an argument without default for.

    Raises:
        UserError: As `resolve_part`, or if a custom part raises anything.
    """
    factory, part = _found(field, text, members)
    with custom_errors({field: part.name}):
        wanted = givens_of(factory)
        if unknown := sorted(wanted - set(given)):
            raise TypeError(f"argument '{unknown[0]}' has no default, and isn't one of {', '.join(given)}")
        return factory(**{name: value for name, value in given.items() if name in wanted}, **part.settings)


def _found(field: str, text: str, members: Mapping[str, Any]) -> tuple[Any, Part]:
    part = read_part(field, text)
    factory = choose_or_import(field, part.name, members)
    with custom_errors({field: part.name}):
        return factory, resolved(field, part, factory)


def is_custom(name: str) -> bool:
    """Whether a name or text refers to a custom part, `package.module:Name`."""
    return ":" in name.partition("(")[0]


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
        place = f"{pathlib.Path(users[-1].filename).name}:{users[-1].lineno}" if users else _definitions(parts)
        raise UserError(f"{custom} failed: {type(error).__name__}: {one_line(error)} ({place}); correct it") from error


def _definitions(parts: Mapping[str, str]) -> str:
    """Where the custom parts are defined: what one of them gave made another part fail."""
    found = []
    for module_name, _, name in (read_part(field, text).name.partition(":") for field, text in parts.items()):
        member: Any = getattr(sys.modules.get(module_name), name, None)
        with contextlib.suppress(TypeError, OSError):
            file, line = inspect.getsourcefile(member), inspect.getsourcelines(member)[1]
            found.append(f"{pathlib.Path(str(file)).name}:{line}")
    return f"from what {', '.join(found)} made"
