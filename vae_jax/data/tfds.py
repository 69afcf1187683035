"""Any TFDS data set by name: found on disk, prepared where it's absent, decoded once; without TensorFlow.

`tensorflow_datasets` takes a second to import, so that's done only where something is prepared or decoded.
"""

import contextlib
import difflib
import io
import json
import os
import queue
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from vae_jax.data import cache, mnist_family
from vae_jax.data.dataset import Dataset, Images, Labels, fingerprint
from vae_jax.errors import UserError

_PROBE_SECONDS = 5.0
_EXAMPLES_AT_ONCE = 1000
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NAME = re.compile(r"([A-Za-z]\w*)(?:/([A-Za-z0-9][\w.+-]*))?(?::(\d+\.\d+\.\d+))?")


def load_tfds(name: str, data_dir: str | None) -> Dataset:
    """Reads a TFDS data set of images of one size, preparing it first where it's absent.

    Args:
        name: TFDS's name: `mnist`, `emnist/letters` or, with a version, `mnist:3.0.1`.
        data_dir: Folder of the prepared data sets; where it's None or empty, `$TFDS_DATA_DIR`, else
            `~/tensorflow_datasets`.

    Returns:
        The parts `train` and `test` (or `validation`, where there's no `test`), largest pixel value 255.

    Raises:
        UserError: If the data set is unknown, isn't there and cannot be prepared, needs TensorFlow, or
            isn't made of 8-bit images of one size.
    """
    request = _parse(name)
    root = _data_root(data_dir)
    prepared = _find_prepared(root, request)
    if prepared is None:
        _prepare(root, request)
        prepared = _find_prepared(root, request)
        if prepared is None:
            raise UserError(f"TFDS left no {name} in {root}; set --config.data.dir to a folder that has it")
    place = prepared.relative_to(root)
    with _reading(prepared):
        key = f"{'-'.join(place.parts)}-{cache.prepared_fingerprint(prepared)}"
    dataset = cache.load(root, key)
    if dataset is None:
        dataset = _decode(prepared, place.parent.as_posix())
        cache.save(root, key, dataset)
    return dataset


class _Request(NamedTuple):
    name: str
    dataset: str
    config: str | None
    version: str | None


def _parse(name: str) -> _Request:
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(f"'{name}' can't be the name of a TFDS data set; use, say, --config.data.name=mnist")
    return _Request(name, *match.groups())


def _data_root(data_dir: str | None) -> Path:
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "://" in root:
        raise UserError(f"{root} is not a local folder; copy it to one and set --config.data.dir to that")
    return Path(root).expanduser().absolute()


def _find_prepared(root: Path, request: _Request) -> Path | None:
    folder = root / request.dataset
    parent = folder / (request.config or _default_config(folder))
    versions = [path.parent for path in parent.glob("*/dataset_info.json")]
    # TFDS prepares in a folder whose name is no version, and renames it when all is written.
    versions = [path for path in versions if _VERSION.fullmatch(path.name)]
    if request.version:
        versions = [path for path in versions if path.name == request.version]
    return max(versions, key=lambda path: [int(number) for number in path.name.split(".")], default=None)


def _default_config(folder: Path) -> str:
    try:
        facts = json.loads((folder / ".config" / "metadata.json").read_text(encoding="utf-8"))
        return facts["default_config_name"]
    except (OSError, ValueError, KeyError):
        return ""


def _prepare(root: Path, request: _Request) -> None:
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    if request.dataset not in known:
        close = difflib.get_close_matches(request.dataset.lower(), known, n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(close)}?" if close else "the TFDS catalog lists the names"
        raise UserError(f"TFDS has no data set '{request.dataset}' and {root} holds none prepared; {meant}")
    in_family = request.dataset in mnist_family.NAMES
    config = tfds.download.DownloadConfig(force_checksums_validation=in_family)
    try:
        # TFDS tells its progress on stdout, where a caller may expect nothing but results.
        with contextlib.redirect_stdout(io.StringIO()):
            if in_family and request.config is None:
                builder = mnist_family.builder_class(request.dataset)(data_dir=root, version=request.version)
            else:
                builder = tfds.builder(request.name, data_dir=root)
            _require_network(builder, root, request)
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except Exception as error:
        if _find_prepared(root, request) is None:
            raise _preparation_error(error, root, request) from error
        # Otherwise another process prepared the same data set meanwhile.


def _require_network(builder: Any, root: Path, request: _Request) -> None:
    # TFDS by itself tries to connect for over three minutes before it gives up.
    problem = _network_problem(_urls_to_download(builder, root))
    if problem:
        raise UserError(
            f"{request.name} isn't in {root} (no {request.dataset}/<version>/dataset_info.json) and can't be "
            f"downloaded ({problem}); set --config.data.dir=FOLDER or TFDS_DATA_DIR=FOLDER to one with it, "
            f"or run this command once where there's a network and copy {root / request.dataset} from there"
        )


def _urls_to_download(builder: Any, root: Path) -> list[str]:
    downloads = root / "downloads"
    present = set()
    for info in [*downloads.glob("*.INFO"), *(downloads / builder.name).glob("*.INFO")]:
        with contextlib.suppress(OSError, ValueError, KeyError):
            present.update(json.loads(info.read_text(encoding="utf-8"))["urls"])
    return [
        url
        for url, info in (builder.url_infos or {}).items()
        if url not in present and not (info.filename and (downloads / "manual" / info.filename).exists())
    ]


def _network_problem(urls: list[str]) -> str | None:
    """Why none of the hosts of these addresses answers; None where one does or there are none."""
    hosts = {urlsplit(url).netloc: url for url in urls if urlsplit(url).scheme in ("http", "https")}
    answers: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
    for host, url in hosts.items():
        # Looking up a name may block for longer than any timeout: a daemon thread can be left behind.
        threading.Thread(target=_probe, args=(host, url, answers), daemon=True).start()
    problems = dict.fromkeys(hosts, f"no answer in {_PROBE_SECONDS:g} s")
    end = time.monotonic() + _PROBE_SECONDS
    for _ in hosts:
        with contextlib.suppress(queue.Empty):
            host, problem = answers.get(timeout=max(0.0, end - time.monotonic()))
            if problem is None:
                return None
            problems[host] = problem
    return "; ".join(f"{host}: {problem}" for host, problem in problems.items()) or None


def _probe(host: str, url: str, answers: queue.SimpleQueue[tuple[str, str | None]]) -> None:
    # With TFDS's own HTTP client, so that proxies and certificates count as they will for the download.
    import requests

    try:
        status = requests.head(url, timeout=_PROBE_SECONDS).status_code
    except requests.RequestException as error:
        answers.put((host, type(error).__name__))
    else:
        # The statuses at which TFDS would try again and again.
        answers.put((host, f"HTTP status {status}" if status in (500, 502, 503, 504) else None))


def _preparation_error(error: Exception, root: Path, request: _Request) -> UserError:
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, ImportError) and cause.name:
            package = cause.name.split(".")[0]
            mend = "'vae-jax[tensorflow]'" if package == "tensorflow" else package
            return UserError(f"TFDS needs {package} to prepare {request.name}; run: pip install {mend}")
    reason = _one_line(error)
    if any(type(cause).__name__ == "NonMatchingChecksumError" for cause in causes):
        reason = f"a download has the wrong checksum ({reason.split(', downloaded to ')[0]})"
        mend = "run the same command again; if it stays so, a proxy or the host hands out other files"
    elif any(isinstance(cause, OSError) and cause.filename for cause in causes):
        mend = "set --config.data.dir to a folder that can be written and has room"
    else:
        mend = "run the same command again, or set --config.data.dir to a folder that has it"
    return UserError(f"{request.name} cannot be prepared in {root}: {reason}; {mend}")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".:") or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


@contextlib.contextmanager
def _reading(prepared: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # TFDS, array_record and Pillow raise whatever comes to hand where a file is damaged.
        cause = f"{prepared} cannot be read: {_one_line(error)}"
        raise UserError(f"{cause}; delete it and run the same command again") from error


def _decode(prepared: Path, name: str) -> Dataset:
    import tensorflow_datasets as tfds

    with _reading(prepared), contextlib.redirect_stdout(io.StringIO()):
        builder = tfds.builder_from_directory(prepared)
        _check_format(builder, prepared)
        names = _split_names(builder, name)
        train_images, train_labels = _read_split(builder, names[0], name)
        test_images, test_labels = _read_split(builder, names[1], name)
    if train_images.shape[1:] != test_images.shape[1:]:
        raise _size_error(name, train_images.shape[1:], test_images.shape[1:])
    arrays = train_images, test_images, train_labels, test_labels
    return Dataset(name, *arrays, max_value=255, fingerprint=fingerprint(*arrays))


def _check_format(builder: Any, prepared: Path) -> None:
    formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise UserError(
            f"{prepared} holds {' and '.join(formats) or 'unknown'} files, but array_record is needed; set "
            "--config.data.dir to another folder to prepare it there, or run, where TensorFlow is installed: "
            f"tfds convert_format --dataset_version_dir={prepared} --out_file_format=array_record"
        )


def _split_names(builder: Any, name: str) -> tuple[str, str]:
    present = list(builder.info.splits)
    test = next((split for split in ("test", "validation") if split in present), None)
    if "train" not in present or test is None:
        raise UserError(
            f"{name} has the splits {', '.join(present) or '(none)'}, but needs train and one of test and "
            "validation; write its images into an .npz and set --config.data.source=npz"
        )
    return "train", test


def _read_split(builder: Any, split: str, name: str) -> tuple[Images, Labels | None]:
    import tensorflow_datasets as tfds

    feature, has_labels = _features(builder, name)
    # Always Pillow: OpenCV, which TFDS takes where it can, decodes JPEGs to other bytes.
    pillow = getattr(feature, "decode_example_np_with_pil", None)
    decoders = {"image": tfds.decode.SkipDecoding()} if pillow else None
    source: Any = builder.as_data_source(split, decoders=decoders)
    images: np.ndarray | None = None
    labels = np.empty(len(source), np.int32) if has_labels else None
    for start in range(0, len(source), _EXAMPLES_AT_ONCE):
        indices = range(start, min(start + _EXAMPLES_AT_ONCE, len(source)))
        for index, example in zip(indices, source.__getitems__(list(indices)), strict=True):
            image = pillow(example["image"], feature.shape[-1]) if pillow else example["image"]
            if images is None:
                images = np.empty((len(source), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise _size_error(name, images.shape[1:], image.shape)
            images[index] = image
            if labels is not None:
                labels[index] = example["label"]
    if images is None:
        raise UserError(f"{name} has no images in its split {split}; use another data set")
    return images, labels


def _features(builder: Any, name: str) -> tuple[Any, bool]:
    features = dict(builder.info.features.items())
    image, label = features.get("image"), features.get("label")
    if image is None or image.np_dtype != np.uint8 or len(image.shape) != 3:
        raise UserError(f"{name} has no 8-bit 'image' but {', '.join(features)}; choose another data set")
    has_labels = label is not None and label.shape == () and np.issubdtype(label.np_dtype, np.integer)
    return image, bool(has_labels)


def _size_error(name: str, first: tuple[int, ...], other: tuple[int, ...]) -> UserError:
    sizes = " and ".join("x".join(map(str, shape)) for shape in (first, other))
    mend = "bring them to one size in an .npz and set --config.data.source=npz"
    return UserError(f"the images of {name} differ in size ({sizes}); {mend}")
