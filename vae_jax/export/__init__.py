"""A trained model as a folder that is handed over: read by JAX alone, or by `vae_jax.load`.

    README.md            model card, with the header that the Hugging Face hub reads
    config.json          config of the run, kind of images, step, versions
    model.safetensors    parameters by flat names, such as encoder.Dense_0.kernel
    encoder.jaxexport    (params, x[, label]) -> {"mean", ...} of q(z|x), serialized by jax.export
    decoder.jaxexport    (params, z[, label]) -> mean of p(x|z)
    SHA256SUMS           of all files but the model card, as `sha256sum -c` takes it

Nothing in it is pickled, and reading it runs none of its code.
"""

from vae_jax.export.card import check_license
from vae_jax.export.folder import is_export, read_export, write_export
from vae_jax.export.functions import flat_params, nested_variables, serialized_functions
