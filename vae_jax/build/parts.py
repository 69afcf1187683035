"""All parts by config field and name, and texts about them."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from vae_jax.build.model import OF_MODEL
from vae_jax.build.objective import OBJECTIVES
from vae_jax.build.registry import resolve_part
from vae_jax.config import Config, from_mapping
from vae_jax.errors import UserError
from vae_jax.settings import Part, closest, read_part, settings_of, text_of
from vae_jax.training import OPTIMIZERS

MEMBERS: Mapping[str, Mapping[str, Any]] = {
    **{f"model.{field}": members for field, members in OF_MODEL.items()},
    "objective": OBJECTIVES,
    "train.optimizer": OPTIMIZERS,
}


def resolve_parts(config: Config) -> Config:
    """The config whose parts have all of their settings; wrong ones are refused here, before anything else is done.

    Raises:
        UserError: For an unknown part or setting, or a wrong value of any field.
    """
    mapping = dataclasses.asdict(config)
    for field, members in MEMBERS.items():
        section, _, name = field.rpartition(".")
        fields = mapping[section] if section else mapping
        fields[name] = resolve_part(field, fields[name], members)
    return from_mapping(mapping)


def shortened(field: str, text: str) -> str:
    """The text of a part with only those settings that differ from their defaults; as it is for a custom part."""
    part = read_part(field, text)
    factory = MEMBERS[field].get(part.name)
    if factory is None:
        return text
    known = settings_of(factory)
    settings = {name: value for name, value in part.settings.items() if value != known[name].default}
    return str(Part(part.name, settings)) if settings else part.name


def describe_parts() -> str:
    """The fields with the names of their parts."""
    return "\n".join(f"{field:<17} {', '.join(members)}" for field, members in MEMBERS.items())


def describe_part(name: str) -> str:
    """What a part is, and its settings with default, meaning and bounds.

    Raises:
        UserError: If there is no such part.
    """
    found = [(field, members[name]) for field, members in MEMBERS.items() if name in members]
    if not found:
        names = [name for members in MEMBERS.values() for name in members]
        raise UserError(f"there is no part '{name}'; the parts are {', '.join(names)}{closest(name, names)}")
    return "\n\n".join(_described(field, name, factory) for field, factory in found)


def _described(field: str, name: str, factory: Any) -> str:
    settings = settings_of(factory)
    lines = [f"{field}={name}", inspect.getdoc(factory) or "", ""]
    lines += [f"  {f'{one}={text_of(of.default)}':<28} {_meaning(of)}" for one, of in settings.items()]
    if settings:
        one, of = next(iter(settings.items()))
        lines += ["", f"example: --config.{field}='{name}({one}={text_of(of.default)})'"]
    return "\n".join(lines)


def _meaning(field: dataclasses.Field) -> str:
    about = field.metadata
    choices = f": {', '.join(about['choices'])}" if about.get("choices") else ""
    least = f"; at least {about['minimum']:g}" if about.get("minimum") is not None else ""
    return f"{about.get('meaning', '')}{choices}{least}"
