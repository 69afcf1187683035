"""How a name in a config becomes the member it stands for."""

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from vae_jax.errors import UserError


def choose(field: str, name: str, members: Mapping[str, Any]) -> Any:
    """The member of that name, or the object that `package.module:Name` leads to.

    Raises:
        UserError: If there is none, with the closest name there is.
    """
    if name in members:
        return members[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:
            # It is a program of the user's: it can raise anything.
            raise UserError(
                f"'{field}' is {name!r}, which can't be imported ({error}); its folder has to be on PYTHONPATH"
            ) from error
    close = difflib.get_close_matches(name, members, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise UserError(
        f"config field '{field}' is {name!r}; {hint}choose from {', '.join(members)}, or name your own, "
        "package.module:Name"
    )


def make(field: str, name: str, members: Mapping[str, Any], *arguments: Any) -> Any:
    """What the member of that name makes of some arguments.

    Raises:
        UserError: If there is none, or one of the user's own can't be called so.
    """
    factory = choose(field, name, members)
    if name in members:
        return factory(*arguments)
    try:
        return factory(*arguments)
    except Exception as error:
        kinds = ", ".join(type(argument).__name__ for argument in arguments)
        raise UserError(
            f"config field '{field}' is {name!r}, which can't be called with ({kinds}): {type(error).__name__}: {error}"
        ) from error
