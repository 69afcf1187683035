"""Downloads and prepares TFDS data sets; MNIST, Fashion-MNIST and KMNIST without TensorFlow.

TFDS's builders of these three need TensorFlow for small things only: to unpack the `.gz` files, to open them and to
encode PNGs. Here the standard library and Pillow do these; the rest (addresses, checksums, names, versions, order of
the examples) is left to TFDS.
"""

import contextlib
import difflib
import functools
import gzip
import io
import os
import threading
import time
import types
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vae_jax.errors import DataError, UserError
from vae_jax.escaping import one_line
from vae_jax.files import read_json

MNIST_FAMILY = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
_PROBE_SECONDS = 5.0
_IDX_UINT8 = b"\0\0\x08"


class Request(NamedTuple):
    """A TFDS name and its parts: `dataset/config:version`."""

    name: str
    dataset: str
    config: str | None
    version: str | None


def prepare(root: Path, request: Request) -> None:
    """Downloads a data set and writes its files as `array_record`.

    Args:
        root: Folder of the prepared data sets.
        request: Which data set.

    Raises:
        Exception: Whatever TFDS raises; `preparation_error` turns it into a `UserError`.
    """
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    if request.dataset not in known:
        close = difflib.get_close_matches(request.dataset.lower(), known, n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(close)}?" if close else "the TFDS catalog lists the names"
        raise DataError(f"TFDS has no data set '{request.dataset}' and {root} holds none prepared", meant)
    in_family = request.dataset in MNIST_FAMILY
    config = tfds.download.DownloadConfig(force_checksums_validation=in_family)
    # TFDS prints its progress to stdout, where a caller may expect nothing but results.
    with contextlib.redirect_stdout(io.StringIO()):
        if in_family and request.config is None:
            builder = builder_class(request.dataset)(data_dir=root, version=request.version)
        else:
            builder = tfds.builder(request.name, data_dir=root)
        # TFDS by itself tries to connect for over three minutes before it gives up.
        if problem := _network_problem(_urls_to_download(builder, root)):
            raise DataError(
                f"{request.name} isn't in {root} (no {request.dataset}/<version>/dataset_info.json) and can't be "
                f"downloaded ({problem})",
                "set --config.data.dir=FOLDER or TFDS_DATA_DIR=FOLDER to one with it, or run this command once where "
                f"there's a network and copy {root / request.dataset} from there",
            )
        builder.download_and_prepare(download_config=config, file_format="array_record")


def preparation_error(error: Exception, root: Path, name: str) -> UserError:
    """The one-line error for whatever went wrong in `prepare`."""
    reason, cause = one_line(error), error
    mend = "run the same command again, or set --config.data.dir to a folder that has it, or is writable and has room"
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, ImportError) and cause.name:
            package = cause.name.split(".")[0]
            return UserError(f"TFDS needs {package} to prepare {name}; run: pip install {package}")
        if type(cause).__name__ == "NonMatchingChecksumError":
            reason = f"a download has the wrong checksum ({reason.split(', downloaded to ')[0]})"
            mend = "run the same command again; if this repeats, a proxy or the host delivers other files"
        cause = cause.__cause__ or cause.__context__
    return DataError(f"{name} cannot be prepared in {root}: {reason}", mend)


def _urls_to_download(builder: Any, root: Path) -> list[str]:
    downloads = root / "downloads"
    present = set()
    for info in [*downloads.glob("*.INFO"), *(downloads / builder.name).glob("*.INFO")]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            present.update(read_json(info)["urls"])
    return [
        url
        for url, info in (builder.url_infos or {}).items()
        if url not in present and not (info.filename and (downloads / "manual" / info.filename).exists())
    ]


def _network_problem(urls: list[str]) -> str:
    """Why none of the hosts of these addresses answers; empty if one does, or without addresses."""
    import requests

    hosts = {urlsplit(url).netloc: url for url in urls if urlsplit(url).scheme in ("http", "https")}
    problems = dict.fromkeys(hosts, f"no answer in {_PROBE_SECONDS:g} s")

    def probe(host: str, url: str) -> None:
        # With TFDS's own HTTP client, so that proxies and certificates count as they will for the download.
        try:
            status = requests.head(url, timeout=_PROBE_SECONDS).status_code
        except requests.RequestException as error:
            problems[host] = type(error).__name__
        else:
            # With these statuses TFDS would try again and again.
            problems[host] = f"HTTP status {status}" if status in (500, 502, 503, 504) else ""

    # Looking up a name can block for longer than any timeout; daemon threads may be left behind.
    threads = [threading.Thread(target=probe, args=item, daemon=True) for item in hosts.items()]
    end = time.monotonic() + _PROBE_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return "; ".join(f"{host}: {problem}" for host, problem in problems.items()) if all(problems.values()) else ""


@functools.cache
def builder_class(name: str) -> type[Any]:
    """TFDS's builder of a member of the family, without its need for TensorFlow.

    Args:
        name: One of `MNIST_FAMILY`.

    Returns:
        A subclass of TFDS's builder class with the same name, version and checksums.
    """
    from tensorflow_datasets.core import registered
    from tensorflow_datasets.image_classification import mnist

    original = getattr(mnist, MNIST_FAMILY[name])
    # TFDS finds the checksums, and records in dataset_info.json where the builder is defined, by `__module__`.
    identity = {"name": original.name, "__module__": original.__module__}
    with registered.skip_registration():
        return type(original.__name__, (_WithoutTensorFlow, original), identity)


class _WithoutTensorFlow:
    """Mixin in front of TFDS's MNIST builders that replaces the methods that need TensorFlow."""

    def _split_generators(self, dl_manager: Any) -> Any:
        # Archives stay packed, since TFDS unpacks with TensorFlow.
        downloads = types.SimpleNamespace(download_and_extract=dl_manager.download)
        return super()._split_generators(downloads)  # pyright: ignore[reportAttributeAccessIssue]

    def _generate_examples(
        self, num_examples: int, data_path: str | os.PathLike[str], label_path: str | os.PathLike[str]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = read_idx(data_path), read_idx(label_path)
        if images.shape != (num_examples, 28, 28) or labels.shape != (num_examples,) or labels.max(initial=0) > 9:
            raise _idx_error(data_path, f"with {label_path} it has not {num_examples} images and labels in 0 .. 9")
        # The index as key gives the examples TFDS's own order: it shuffles by a hash of the key.
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": io.BytesIO(encode_png(image)), "label": int(label)}


def read_idx(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "..."]:
    """Reads a gzipped idx file of bytes, the format of LeCun's MNIST files.

    Args:
        path: The `.gz` file.

    Returns:
        `uint8` array of the shape in the file's header.

    Raises:
        UserError: If the file is truncated, is not gzip, or is not an idx file of bytes.
    """
    try:
        content = gzip.decompress(Path(path).read_bytes())
        if content[:3] != _IDX_UINT8:
            raise ValueError(f"it starts with {content[:4].hex() or 'nothing'} where 000008 is expected")
        shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + shape.nbytes).reshape(shape.tolist())
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, IndexError) as error:
        raise _idx_error(path, one_line(error)) from error


def encode_png(image: UInt8[np.ndarray, "h w"]) -> bytes:
    """Packs one grey image losslessly as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def _idx_error(path: str | os.PathLike[str], cause: str) -> UserError:
    return UserError(
        f"{os.fspath(path)} is not the idx file that was expected: {cause}; "
        "delete it and run the same command again to download it anew"
    )
