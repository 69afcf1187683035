"""Settings of all tests: shapes are checked while they run, and eight CPU devices are simulated."""

import atexit
import os
import pathlib
import shutil
import tempfile

# Almost all of the tests' time is compilation, and none of them is about the speed of what is compiled.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

# Nor is it about what a user's cache happens to hold. What one of them has compiled the others need not compile again,
# in whatever process: a seventh of the time.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-for-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jaxtyping
import pytest

jaxtyping.install_import_hook("vae_jax", "checked_types.checked")


@pytest.fixture
def shared_data() -> pathlib.Path:
    """Real data; the tests that need it are skipped where it is absent."""
    beside = pathlib.Path(__file__).parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("VAE_JAX_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder}; set VAE_JAX_TEST_DATA to where it is")
    return folder
