"""Texts of parts: what is read, what is refused, and that they come back."""

import ast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vae_jax.build import MEMBERS, resolve_parts
from vae_jax.build.registry import make_part, resolve_part
from vae_jax.cli import train
from vae_jax.cli.flags import parse, read_config
from vae_jax.config import Config, ModelConfig, differences
from vae_jax.errors import UserError
from vae_jax.posteriors import IAF
from vae_jax.settings import Part, read_part, settings_of


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("iaf", "iaf", {}),
        (" iaf ( flows = 8 ) ", "iaf", {"flows": 8}),
        ("x(a=-1, b=1.5, c=True, d=None, e=relu, f='a b')", "x", dict(a=-1, b=1.5, c=True, d=None, e="relu", f="a b")),
        ("x(a=(1, 2), b=[3], c=())", "x", {"a": (1, 2), "b": (3,), "c": ()}),
        ("x(a=y(b=1), c=z)", "x", {"a": Part("y", {"b": 1}), "c": "z"}),
        ("my.own_parts:Sphere(radius=2)", "my.own_parts:Sphere", {"radius": 2}),
        ("my_parts:Sphere", "my_parts:Sphere", {}),
    ],
)
def test_what_is_read(text: str, name: str, values: dict) -> None:
    assert read_part("model.prior", text) == Part(name, values)


WRONG = [
    *("", "3", "iaf(", "iaf)", "iaf(4)", "iaf(*a)", "iaf(**a)", "iaf(flows=2**9)", "iaf(flows=-x)", "a.b", "iaf()()"),
    *("iaf(flows=1e400)", "iaf(a=1, a=2)", "iaf(a=lambda: 1)", "iaf(a={})", "iaf(a=f'{1}')", "iaf(a=b.c)", "a:b:c"),
    *("iaf(a=[x for x in y])", "iaf(a=b'x')", "iaf(a=1j)", "iaf(a=...)", "iaf(a=-True)", "(" * 900, "-" * 900, "\0"),
    "iaf(flows=__import__('os').system('x'))",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"model\.posterior") as caught:
        read_part("model.posterior", text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


VALUES = st.recursive(
    st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
    | st.text(max_size=8).filter(lambda text: "\0" not in text and text.isprintable()),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
@given(st.dictionaries(st.sampled_from(["a", "flows", "hidden"]), VALUES))
def test_texts_come_back(values: dict) -> None:
    part = Part("iaf", values)
    assert read_part("x", str(part)) == part
    # Python reads the same values, where a bare name isn't one.
    if values and not any(isinstance(value, str | tuple) for value in values.values()):
        call = ast.parse(str(part), mode="eval").body
        assert isinstance(call, ast.Call)
        assert {word.arg: ast.literal_eval(word.value) for word in call.keywords} == values


def test_resolved_text_has_all_settings_and_stays() -> None:
    text = resolve_part("model.posterior", "iaf(hidden=[8])", MEMBERS["model.posterior"])
    assert text == "iaf(flows=4, hidden=(8,))"
    assert resolve_part("model.posterior", text, MEMBERS["model.posterior"]) == text
    built = make_part("model.posterior", text, MEMBERS["model.posterior"], latents=3, levels=256)
    assert built == IAF(3, flows=4, hidden=(8,))


def test_same_part_written_differently_is_the_same_run() -> None:
    one, same, other = (resolve_parts(Config(model=ModelConfig(prior=text))) for text in PRIORS)
    assert differences(one, same) == []
    (difference,) = differences(one, other)
    assert "model.prior" in difference and "components=3" in difference


PRIORS = ("mixture", "mixture(components=100)", "mixture(components=3)")


@pytest.mark.parametrize("field", MEMBERS)
def test_every_setting_has_a_meaning_and_a_sound_default(field: str) -> None:
    for name, member in MEMBERS[field].items():
        assert all(of.metadata["meaning"] for of in settings_of(member).values()), name
        assert resolve_part(field, name, MEMBERS[field]).startswith(name)


@pytest.mark.parametrize("order", [1, -1])
def test_single_settings_after_whole_texts_in_any_order(order: int) -> None:
    flags = ["--config.model.posterior=iaf(flows=2)", "--config.model.posterior.hidden=(8,)"][::order]
    config = read_config(parse(train, [*flags, "--config.objective.num_samples", "3"]))
    assert config.model.posterior == "iaf(flows=2, hidden=(8,))" and config.objective == "elbo(num_samples=3)"
