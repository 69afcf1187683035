"""The notebook runs from top to bottom, and shows what it says."""

import pathlib

import nbclient
import nbformat
import pytest

TOUR = pathlib.Path(__file__).parents[1] / "docs" / "tour.ipynb"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Jupyter's own
def test_tour(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel is a process of its own, which compiles as a user's does.
    for name in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    notebook = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    (said,) = [output.text for output in outputs if output.get("text", "").startswith("test ELBO")]
    # An encoder that told nothing would stay below -30 nats.
    assert -21.0 < float(said.split()[2]) < -17.0
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
