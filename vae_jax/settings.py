"""Settings: fields with a default, a meaning and bounds; and texts such as `iaf(flows=8)` that set those of a part.

A text is a literal, a bare name, or a call of a name with keyword arguments of these three, nested. Nothing in it is
evaluated. `package.module:` may stand in front.
"""

import ast
import dataclasses
import difflib
import functools
import inspect
import keyword
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from vae_jax.errors import COUNTS, UserError
from vae_jax.escaping import one_line

# Most numbers in a tuple, as what is created one by one has bounds: a config can come from somebody else.
MOST_NUMBERS = 128
_LONGEST_TEXT, _LONGEST_PART = 4096, 1000
_CUSTOM = re.compile(r"\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:)(?=[A-Za-z_])")


def setting(
    default: Any,
    meaning: str,
    *,
    minimum: float | None = None,
    below: float | None = None,
    choices: Collection[str] = (),
    shortest: int = 0,
) -> Any:
    """A field of a dataclass that users set.

    Args:
        default: Its type is the type of the field; whole numbers are below 2^31 unless `below` says otherwise.
        meaning: In a few words.
        minimum: The least value, of each number of a tuple.
        below: What the value must be below.
        choices: The names that it can be.
        shortest: Least length of a tuple.
    """
    if below is None and all(type(number) is int for number in _numbers(default)):
        below = COUNTS
    bounds = {"minimum": minimum, "below": below, "choices": tuple(choices), "shortest": shortest}
    return dataclasses.field(default=default, metadata={"meaning": meaning, **bounds})


def checked(what: str, value: Any, field: dataclasses.Field) -> Any:
    """The value as the type of its field.

    Args:
        what: What it is the value of, for errors.
        value: From a user.
        field: From `setting`, or any field with a default.

    Raises:
        UserError: For another type, or a value out of bounds.
    """
    kind, bounds, example = type(field.default), field.metadata, f"e.g. {field.default!r}"

    def wrong(needed: str) -> UserError:
        return UserError(f"{what} is {one_line(repr(value), 100)} but must be {needed}")

    if kind is tuple:
        if not isinstance(value, list | tuple) or any(type(number) is not int for number in value):
            raise wrong("whole numbers, e.g. (400,) or ()")
        if not bounds.get("shortest", 0) <= len(value) <= MOST_NUMBERS:
            raise wrong(f"at least one number and at most {MOST_NUMBERS}, {example}")
        value = tuple(value)
    elif kind is float and type(value) is int:
        value = float(value) if abs(value) < COUNTS**2 else math.inf
    elif kind in _KINDS and type(value) is not kind:
        raise wrong(f"{_KINDS[kind]}, {example}")
    if kind is float and not math.isfinite(value):
        raise wrong(f"a finite number, {example}")
    if isinstance(value, str) and (len(value) > _LONGEST_TEXT or "\0" in value):
        raise wrong(f"a text of at most {_LONGEST_TEXT} characters without NUL")
    minimum, below, choices = bounds.get("minimum"), bounds.get("below"), bounds.get("choices")
    if minimum is not None and not all(number >= minimum for number in _numbers(value)):
        raise wrong(f"at least {minimum}")
    if below is not None and not all(number < below for number in _numbers(value)):
        raise wrong(f"below {below}")
    if choices and value not in choices:
        raise wrong(f"one of {', '.join(choices)}{closest(str(value), choices)}")
    return value


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}


class Part(NamedTuple):
    """A part by name, with settings.

    >>> part = read_part("model.posterior", "iaf(flows=8, hidden=(64,))")
    >>> part.name, part.settings["flows"], str(part)
    ('iaf', 8, 'iaf(flows=8, hidden=(64,))')
    """

    name: str
    settings: Mapping[str, Any]

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={text_of(value)}" for name, value in self.settings.items())
        return f"{self.name}({settings})" if settings else self.name


@functools.lru_cache(maxsize=1024)
def read_part(field: str, text: str) -> Part:
    """A part from its text.

    Args:
        field: Config field, for errors.
        text: A name, or a name with settings.

    Raises:
        UserError: If it is anything else.
    """

    def wrong(why: str) -> UserError:
        return UserError(
            f"config field '{field}' is {one_line(repr(text), 100)}: {why}; give a name, or a name with settings such "
            "as 'iaf(flows=8)', in quotes on a command line"
        )

    if len(text) > _LONGEST_PART:
        raise wrong(f"it is longer than {_LONGEST_PART} characters")
    custom = _CUSTOM.match(text)
    module, call = (custom[1], text[custom.end() :]) if custom else ("", text)
    tree = _parsed(call)
    if isinstance(tree, ast.Name):
        return Part(module + tree.id, {})
    if not isinstance(tree, ast.Call):
        raise wrong("it can't be read")
    try:
        part = _value(tree)
    except ValueError as error:
        raise wrong(str(error)) from error
    return part._replace(name=module + part.name)


def read_setting(what: str, text: str) -> Any:
    """The value of one setting from its text, as it would stand in the text of a part.

    >>> read_setting("flows", "8"), read_setting("hidden", "(64, 32)"), read_setting("activation", "silu")
    (8, (64, 32), 'silu')

    Raises:
        UserError: If it can't be read.
    """
    tree = _parsed(text) if len(text) <= _LONGEST_PART else None
    try:
        if tree is None:
            raise ValueError("it can't be read")
        return _value(tree)
    except ValueError as error:
        raise UserError(f"{what} is {one_line(repr(text), 100)}: {error}; give e.g. 8, (64, 32) or a name") from error


def settings_of(factory: Callable[..., Any]) -> dict[str, dataclasses.Field]:
    """The settings of a part: the arguments of its class (or function) that have a default."""
    if dataclasses.is_dataclass(factory):
        fields = {
            field.name: field for field in dataclasses.fields(factory) if field.default is not dataclasses.MISSING
        }
        # A Linen module has two of its own.
        others = {"parent", "name"} if {"parent", "name"} <= set(fields) else set()
        others |= {name for name, field in fields.items() if field.metadata.get("given") or not field.init}
        return {name: field for name, field in fields.items() if name not in others}
    parameters = inspect.signature(factory).parameters.values()
    return {one.name: dataclasses.field(default=one.default) for one in parameters if one.default is not one.empty}


def given(default: Any) -> Any:
    """A field of a part that isn't a setting although it has a default: others give it."""
    return dataclasses.field(default=default, metadata={"given": True})


def givens_of(factory: Callable[..., Any]) -> set[str]:
    """The arguments that a part takes from others: those without a default, and those of `given`."""
    parameters = inspect.signature(factory).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    fields = dataclasses.fields(factory) if dataclasses.is_dataclass(factory) else ()
    marked = {field.name for field in fields if field.metadata.get("given")}
    return {one.name for one in parameters if one.default is one.empty and one.kind in named} | marked


def resolved(field: str, part: Part, factory: Callable[..., Any]) -> Part:
    """The part with all of its settings, those that weren't given at their defaults.

    Raises:
        UserError: For an unknown setting, with the closest one, a wrong type or a value out of bounds.
    """
    known = settings_of(factory)
    for name in part.settings:
        if name not in known:
            have = ", ".join(f"{name}={text_of(of.default)}" for name, of in known.items())
            has = f"its settings are {have}" if have else "it has none"
            raise UserError(f"{field} '{part.name}' has no setting '{one_line(name, 60)}'; {has}{closest(name, known)}")
    values = {
        name: checked(f"setting '{name}' of {field} '{part.name}'", part.settings.get(name, of.default), of)
        for name, of in known.items()
    }
    return Part(part.name, values)


def closest(name: str, known: Iterable[str]) -> str:
    """`; did you mean '...'?`, or nothing where nothing known is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean '{close[0]}'?" if close else ""


def _numbers(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(tree: ast.expr) -> Any:
    """A literal, a name as a text, or a part.

    Raises:
        ValueError: For anything else.
    """
    match tree:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError("it has a number that isn't finite")
            return value
        case ast.Name(id=name):
            return name
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if value is not True:
            return -_value(tree.operand)
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(map(_value, items))
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords) if all(one.arg for one in keywords):
            settings = {str(one.arg): _value(one.value) for one in keywords}
            if len(settings) < len(keywords):
                raise ValueError("a setting stands there twice")
            return Part(name, settings)
        case ast.Call(func=ast.Name(), args=[_, *_]):
            raise ValueError("a setting has no name")
    raise ValueError(f"'{one_line(ast.unparse(tree), 60)}' is no number, text, name or tuple of these")


def text_of(value: Any) -> str:
    """A setting as it stands in the text of a part."""
    if isinstance(value, Part):
        return str(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(text_of, value))}{',' if len(value) == 1 else ''})"
    # Python takes names that aren't ASCII as other, equivalent ones.
    bare = isinstance(value, str) and value.isascii() and value.isidentifier() and not keyword.iskeyword(value)
    return value if bare else repr(value)
