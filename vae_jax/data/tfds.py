"""Any TFDS data set by name: found on disk, prepared where it's absent; without TensorFlow.

`tensorflow_datasets` takes a second to import, so that's done only where something is prepared or decoded.
"""

import contextlib
import difflib
import io
import os
import queue
import re
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from vae_jax.data import cache, mnist_family
from vae_jax.data.dataset import Dataset, Labels, fingerprint
from vae_jax.data.decoding import AS_THEY_ARE, Sizing
from vae_jax.data.prepared import PreparedReader, open_prepared, reading
from vae_jax.data.streamed import StreamedImages
from vae_jax.errors import DataError, UserError
from vae_jax.files import read_json
from vae_jax.printable import one_line

_PROBE_SECONDS = 5.0
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NAME = re.compile(r"([A-Za-z]\w*)(?:/([A-Za-z0-9][\w.+-]*))?(?::(\d+\.\d+\.\d+))?")


def load_tfds(name: str, data_dir: str | None, sizing: Sizing = AS_THEY_ARE, resident_mb: int = 2048) -> Dataset:
    """Reads a TFDS data set of images of one size, preparing it first where it's absent.

    Args:
        name: TFDS's name: `mnist`, `emnist/letters` or, with a version, `mnist:3.0.1`.
        data_dir: Folder of the prepared data sets; where it's None or empty, `$TFDS_DATA_DIR`, else
            `~/tensorflow_datasets`.
        sizing: What size images are brought to.
        resident_mb: How much memory the decoded images may take, in MiB; larger ones stay in their files.

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
            raise DataError(f"TFDS left no {name} in {root}", "set --config.data.dir to a folder that has it")
    place = prepared.relative_to(root)
    with reading(prepared):
        digest = cache.prepared_fingerprint(prepared)
    key = "-".join([*place.parts, digest, *filter(None, [str(sizing)])])
    return _load(root, key, prepared, place.parent.as_posix(), digest, sizing, resident_mb * 2**20)


def is_prepared(name: str, data_dir: str | None) -> bool:
    """Whether a data set is there, so that reading it needs neither a download nor preparation."""
    return _find_prepared(_data_root(data_dir), _parse(name)) is not None


def _load(root: Path, key: str, prepared: Path, name: str, digest: str, sizing: Sizing, resident_bytes: int) -> Dataset:
    """What is in memory comes from the cache where it's there, which takes no import of TFDS."""
    kept_bytes = cache.image_bytes(root, key)
    kept = cache.load(root, key) if kept_bytes is not None and kept_bytes <= resident_bytes else None
    if kept is not None:
        return kept
    readers = open_prepared(prepared, digest, name, sizing)
    train, test = (StreamedImages(reader, np.arange(len(reader))) for reader in readers)
    if train.nbytes + test.nbytes <= resident_bytes:
        (train_images, train_labels), (test_images, test_labels) = (reader.read_all() for reader in readers)
        arrays = train_images, test_images, train_labels, test_labels
        dataset = Dataset(name, *arrays, max_value=255, fingerprint=fingerprint(*arrays))
        cache.save(root, key, dataset)
        return dataset
    train_labels, test_labels = _labels(root, f"{key}-labels", readers)
    return Dataset(name, train, test, train_labels, test_labels, max_value=255, fingerprint=digest)


def _labels(root: Path, key: str, readers: tuple[PreparedReader, PreparedReader]) -> list[Labels | None]:
    """The labels alone, kept like a data set of images without pixels: they are scattered over all of its files."""
    kept = cache.load(root, key)
    if kept is not None:
        return [kept.train_labels, kept.test_labels]
    labels = [reader.read_labels() for reader in readers]
    if labels[0] is not None:
        train, test = (np.empty((len(reader), 0, 0, 0), np.uint8) for reader in readers)
        cache.save(root, key, Dataset(key, train, test, *labels, max_value=255, fingerprint=key))
    return labels


class _Request(NamedTuple):
    name: str
    dataset: str
    config: str | None
    version: str | None


def _parse(name: str) -> _Request:
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"'{name}' can't be the name of a TFDS data set", "use, say, --config.data.name=mnist")
    return _Request(name, *match.groups())


def _data_root(data_dir: str | None) -> Path:
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "://" in root:
        raise DataError(f"{root} is not a local folder", "copy it to one and set --config.data.dir to that")
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
        return str(read_json(folder / ".config" / "metadata.json")["default_config_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _prepare(root: Path, request: _Request) -> None:
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    if request.dataset not in known:
        close = difflib.get_close_matches(request.dataset.lower(), known, n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(close)}?" if close else "the TFDS catalog lists the names"
        raise DataError(f"TFDS has no data set '{request.dataset}' and {root} holds none prepared", meant)
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
        raise DataError(
            f"{request.name} isn't in {root} (no {request.dataset}/<version>/dataset_info.json) and can't be "
            f"downloaded ({problem})",
            "set --config.data.dir=FOLDER or TFDS_DATA_DIR=FOLDER to one with it, or run this command once where "
            f"there's a network and copy {root / request.dataset} from there",
        )


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
            return UserError(f"TFDS needs {package} to prepare {request.name}; run: pip install {package}")
    reason = one_line(error)
    if any(type(cause).__name__ == "NonMatchingChecksumError" for cause in causes):
        reason = f"a download has the wrong checksum ({reason.split(', downloaded to ')[0]})"
        mend = "run the same command again; if it stays so, a proxy or the host hands out other files"
    elif any(isinstance(cause, OSError) and cause.filename for cause in causes):
        mend = "set --config.data.dir to a folder that can be written and has room"
    else:
        mend = "run the same command again, or set --config.data.dir to a folder that has it"
    return DataError(f"{request.name} cannot be prepared in {root}: {reason}", mend)
