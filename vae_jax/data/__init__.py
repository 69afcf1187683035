"""Where images come from, and what is done to their pixels before a model sees them."""

from vae_jax.data.batches import BatchReader, streamed_batches
from vae_jax.data.binarization import dynamic_binarization, scaled
from vae_jax.data.dataset import SPLITS, Dataset, ImageKind, Split
from vae_jax.data.digits import load_digits
from vae_jax.data.folder import load_folder
from vae_jax.data.npz import load_npz
from vae_jax.data.order import batch_indices, epoch_order
from vae_jax.data.streamed import Images, StreamedImages, take
from vae_jax.data.tfds import load_tfds
