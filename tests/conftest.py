"""Settings of all tests: shapes are checked while they run, and eight CPU devices are simulated."""

import os
import pathlib

# Almost all of the tests' time is compilation, and none of them is about the speed of what is compiled.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

# Nor is it about what a user's cache happens to hold.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")

import jaxtyping
import pytest

jaxtyping.install_import_hook("vae_jax", "checked_types.checked")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long forms run only where they are asked for."""
    if "slow" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="a long form; pytest -m slow runs it"))


@pytest.fixture
def shared_data() -> pathlib.Path:
    """Real data; the tests that need it are skipped where it is absent."""
    beside = pathlib.Path(__file__).parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("VAE_JAX_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder}; set VAE_JAX_TEST_DATA to where it is")
    return folder
