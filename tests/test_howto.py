"""What the how-tos say works: their files are written down and trained with."""

import pathlib
import re

import pytest

from vae_jax.cli import main

DOCS = pathlib.Path(__file__).parents[1] / "docs" / "howto"
TINY = [
    "--config.model.network.hidden=(8,)",
    "--config.model.latents=2",
    "--config.train.num_steps=2",
    "--config.train.report=False",
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("page", "flags"),
    [
        ("own_network", ["--config.model.network=my_network:network"]),
        ("own_likelihood", ["--config.model.likelihood=my_likelihood:likelihood", "--config.data.binarization=none"]),
    ],
)
def test_code_of_a_page(
    page: str, flags: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    text = (DOCS / f"{page}.md").read_text()
    (code,) = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", text, re.DOTALL)
    name, content = code
    assert all(f"--config.model.{flag.split('.model.')[1]}" in text for flag in flags[:1])
    (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    main([f"--workdir={tmp_path / 'run'}", *TINY, *flags])
    assert "test ELBO" in capsys.readouterr().out
