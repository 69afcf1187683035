"""A page out of its parts: one file, of which nothing points to the network."""

import base64
import functools
import hashlib
import importlib.resources
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from vae_jax.report.payload import to_json

# Of a page of 10 MB the charts' library takes a half.
_MOST_DATA = 4_600_000
_SCRIPTS = (
    *("data.js", "decoder.js", "frames.js", "pictures.js"),
    *("explorer.js", "interpolation.js", "charts.js", "main.js"),
)


class Page(NamedTuple):
    """A page, and what whoever asked for it should know.

    Attributes:
        html: The whole of it.
        left_out: What it lacks because images can't be read, in sentences.
    """

    html: str
    left_out: tuple[str, ...]


def render(template: str, data: dict[str, Any], **values: Any) -> str:
    """The page.

    Args:
        template: Its file in `page/`.
        data: For its scripts; see `vae_jax.report.payload`.
        values: For the template, which escapes all texts.
    """
    # The scripts of a page see each other's names if they are one.
    ours = '"use strict";\n' + "\n".join(_file(name) for name in _SCRIPTS)
    scripts = [_inside_element(get_plotlyjs()), _inside_element(ours)]
    page = _environment().get_template(template)
    return page.render(
        data=Markup(to_json(data, _MOST_DATA)),
        scripts=[Markup(script) for script in scripts],
        style=Markup(_file("style.css")),
        policy=_policy(scripts),
        **values,
    )


def _policy(scripts: list[str]) -> str:
    """A Content-Security-Policy under which these scripts run and no others, and nothing is fetched."""
    digests = (hashlib.sha256(script.encode("utf-8")).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode('ascii')}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def _inside_element(script: str) -> str:
    """A script that doesn't end its own element, with the line ends that HTML readers keep."""
    return script.replace("\r\n", "\n").replace("\r", "\n").replace("</script", r"<\/script")


def _file(name: str) -> str:
    return (importlib.resources.files("vae_jax.report") / "page" / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FunctionLoader(_file)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"nats": _nats, "error": _error}
    return environment


def _nats(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}".replace("-", "−")


def _error(value: float) -> str:
    """With the digits of the value, and one more where they would say nothing."""
    return f"{value:.2f}" if value >= 0.01 or value == 0 else f"{value:.3f}"
