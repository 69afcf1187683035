"""What is fuzzed: for each kind a function that makes a file from random numbers and hands it to the package."""

import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags as absl_flags
from fuzz_mutations import EDGES, Rng, any_text, any_value, as_text, damaged, damaged_json
from PIL import Image

import vae_jax
from vae_jax import build, runs
from vae_jax.cli import flags, listeners, main, train
from vae_jax.config import Config, flatten
from vae_jax.data import ImageKind, load_folder, load_npz
from vae_jax.data.decoding import Sizing
from vae_jax.data.user_images import read_images
from vae_jax.errors import UserError
from vae_jax.report.facts import read_curves
from vae_jax.trained import check_custom, open_run

KIND = ImageKind((4, 4, 1), 255, 0)
_SUMS = "SHA256SUMS"
_DTYPES = ("u1", "<u2", ">u2", "<i8", ">i4", "f4", ">f8", "?", "<c8", "<U3", "S5", "O", "<M8[s]", "V4", "u1,f4", "<U0")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")


def kinds(run: pathlib.Path, exported: pathlib.Path) -> dict[str, Callable[[Rng, pathlib.Path], None]]:
    """Each kind's function of (random numbers, folder to work in).

    Args:
        run: A sound run.
        exported: Where it is exported to.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        main(["export", f"--workdir={run}", f"--output={exported}"])
    return {
        **{"npz": npz, "folder": folder, "config": config},
        "metrics": lambda rng, work: metrics(rng, work, run),
        "checkpoint": lambda rng, work: checkpoint(rng, work, run),
        "export": lambda rng, work: export(rng, work, exported),
    }


def npz(rng: Rng, work: pathlib.Path) -> None:
    """Archives of images, as data of a run or brought to a model."""
    path = work / "images.npz"
    path.write_bytes(_archive(rng, {"images": (12, 4, 4), "labels": (12,)}, "u1"))
    if rng.random() < 0.5:
        load_npz(str(path), 0.25, 0)
    else:
        read_images(str(path), KIND)


def folder(rng: Rng, work: pathlib.Path) -> None:
    """Pictures, as data of a run or brought to a model."""
    root = work / "pictures"
    root.mkdir()
    classes = ["", "", "", "a/", "\x1b[31mb/"]
    for number in range(rng.integers(1, 5)):
        name = f"{classes[rng.integers(len(classes))]}{number}{_name(rng)}"
        path = root / name
        path.parent.mkdir(exist_ok=True)
        content = _picture(rng)
        path.write_bytes(damaged(rng, content) if rng.random() < 0.6 else content)
    if rng.random() < 0.3:
        read_images(str(root), KIND, "crop")
        return
    sizing = Sizing(int(rng.choice([0, 4, 9])), str(rng.choice(["crop", "resize"])))
    unreadable = str(rng.choice(["refuse", "skip"]))
    found = load_folder(str(root), 0.25, 0, sizing, int(rng.integers(2)), unreadable)
    assert np.asarray(found.train_images).dtype == np.uint8 and np.asarray(found.test_images).ndim == 4


def config(rng: Rng, work: pathlib.Path) -> None:
    """Settings from a file or the command line: what is accepted makes a model, or is refused for what it asks for."""
    if rng.random() < 0.5:
        (work / "config.json").write_bytes(as_text(rng, damaged_json(rng, dataclasses.asdict(Config()))))
        _use(runs.RunFolder(work).read_config())
        return
    try:
        _use(flags.read_config(flags.parse(train, [_override(rng) for _ in range(rng.integers(1, 4))])))
    except absl_flags.Error as error:
        # The command line makes one line of it.
        raise UserError(" ".join(f"it can't be parsed: {error}".split()).encode("ascii", "replace").decode()) from error


def _override(rng: Rng) -> str:
    fields = list(flatten(Config()))
    name, value, field = fields[rng.integers(len(fields))]
    shown = (
        any_text(rng),
        str(any_value(rng)),
        "9" * 5000,
        f"({any_value(rng)!r},)",
        str(field.metadata["minimum"]),
        damaged(rng, str(value).encode()).decode("utf-8", "replace"),
    )[rng.integers(6)]
    return f"--config.{name}={shown}"


def _use(config: Config) -> None:
    """Goes as far as a model, as the parts of others aren't imported."""
    check_custom(config, pathlib.Path("given"), False)
    numbers = [int(number) for number in re.findall(r"\d{1,9}", str(dataclasses.asdict(config.model)))]
    if sum(numbers) <= 10**6 and len(numbers) <= 30:
        build.build_model_for(config, KIND)


def metrics(rng: Rng, work: pathlib.Path, run: pathlib.Path) -> None:
    """Rows that a continued run and its report read."""
    lines = (run / "metrics.jsonl").read_bytes().splitlines()
    for number in rng.permutation(len(lines))[: rng.integers(1, 4)].tolist():
        if rng.random() < 0.7:
            lines[number] = as_text(rng, damaged_json(rng, json.loads(lines[number])))
        else:
            lines[number] = damaged(rng, lines[number])
    given = runs.RunFolder(work)
    given.metrics.write_bytes(b"\n".join(lines))
    kept = listeners.MetricsFile(given.metrics, 6)
    kept.close()
    rows = runs.read_rows(given.metrics)
    assert all(row["step"] <= 6 for row in rows)
    for row in rows:
        listeners.describe(row)
    listeners.CollapseWatch(rows, print)
    json.dumps(read_curves(given), allow_nan=False)


def checkpoint(rng: Rng, work: pathlib.Path, run: pathlib.Path) -> None:
    """Runs with one file changed, by accident or by somebody who wants to be believed."""
    given = pathlib.Path(shutil.copytree(run, work / "run", ignore=shutil.ignore_patterns("images", "tensorboard")))
    folder = given / "checkpoints" / "12"
    files = [path for path in folder.rglob("*") if path.is_file()]
    path = [given / "config.json", given / "images.json", folder / "checkpoint.json", *files][
        rng.integers(len(files) + 3)
    ]
    if path.suffix == ".json" and rng.random() < 0.8:
        path.write_bytes(as_text(rng, damaged_json(rng, json.loads(path.read_text()))))
    else:
        path.write_bytes(damaged(rng, path.read_bytes()))
    if rng.random() < 0.8:
        _sign(folder)
    open_run(str(given), "12")


def _sign(folder: pathlib.Path) -> None:
    """Makes the digests of a checkpoint fit what is there, as far as its record still is one."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, OSError):
        record = json.loads((folder / "checkpoint.json").read_text())
        record.pop("digest", None)
        files = record.get("files")
        for name in files if isinstance(files, dict) else ():
            with contextlib.suppress(ValueError, OSError):
                files[name] = hashlib.sha256((folder / "state" / name).read_bytes()).hexdigest()
        canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
        record["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
        (folder / "checkpoint.json").write_text(json.dumps(record))


def export(rng: Rng, work: pathlib.Path, exported: pathlib.Path) -> None:
    """Exported folders with one file changed, with checksums to match or not."""
    given = pathlib.Path(shutil.copytree(exported, work / "exported"))
    names = ("config.json", "config.json", "model.safetensors", "model.safetensors", _SUMS, "encoder.jaxexport")
    path = given / names[rng.integers(len(names))]
    if path.suffix == ".json" and rng.random() < 0.8:
        path.write_bytes(as_text(rng, damaged_json(rng, json.loads(path.read_text()))))
    elif path.suffix == ".safetensors" and rng.random() < 0.7:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = as_text(rng, damaged_json(rng, json.loads(content[8 : 8 + length])))
        said = len(header) if rng.random() < 0.8 else int(rng.choice([0, 1, 2**40, 2**63 - 1]))
        path.write_bytes(struct.pack("<Q", said) + header + content[8 + length :])
    else:
        path.write_bytes(damaged(rng, path.read_bytes()))
    if rng.random() < 0.8 and path.name != _SUMS:
        lines = [line.split("  ") for line in (given / _SUMS).read_text().splitlines()]
        sums = [f"{hashlib.sha256((given / name).read_bytes()).hexdigest()}  {name}\n" for _, name in lines]
        (given / _SUMS).write_text("".join(sums))
    vae_jax.load(given)


def _name(rng: Rng) -> str:
    ends = (".png", ".jpg", ".tif", ".webp", ".gif", ".bmp")
    text = any_text(rng).translate({ord("/"): None, 0: None, 0xD800: None})[:40]
    return ("\udcff" if rng.random() < 0.1 else "") + text + ends[rng.integers(len(ends))]


def _picture(rng: Rng) -> bytes:
    mode, kind = _MODES[rng.integers(len(_MODES))], _FORMATS[rng.integers(len(_FORMATS))]
    sides = [1, 2, 3, 4, 5, 9, 17]
    width, height = (int(rng.choice(sides)) for _ in range(2))
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (height, width), np.uint16))
    elif mode != "RGB":
        image = (image.convert("L") if mode in ("LA", "PA") else image).convert(mode if mode != "PA" else "P")
    file = io.BytesIO()
    try:
        image.save(file, kind)
    except (OSError, ValueError):
        file = io.BytesIO()
        image.convert("L").save(file, "PNG")
    return file.getvalue()


def _archive(rng: Rng, shapes: dict[str, tuple[int, ...]], dtype: str) -> bytes:
    """An `.npz`: sound but for one thing."""
    file = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED
    kind = rng.integers(4)
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, shape in shapes.items():
            content = _member(rng, shape, dtype if name != "labels" else "<i8", kind == 0)
            archive.writestr(f"{name}.npy", damaged(rng, content) if kind == 1 else content)
        if rng.random() < 0.05:
            archive.writestr("x" + any_text(rng).replace("\ud800", ""), b"anything")
    content = file.getvalue()
    if kind == 2:
        return damaged(rng, content)
    return _field_changed(rng, content) if kind == 3 else content


def _field_changed(rng: Rng, content: bytes) -> bytes:
    """One field of the zip directory, or of what stands before a member, replaced."""
    marks = {b"PK\x03\x04": 30, b"PK\x01\x02": 46, b"PK\x05\x06": 22}
    mark = list(marks)[rng.integers(3)]
    starts = [start for start in range(len(content)) if content.startswith(mark, start)]
    if not starts:
        return content
    changed, size = bytearray(content), int(rng.choice([2, 4]))
    place = starts[rng.integers(len(starts))] + 4 + int(rng.integers(marks[mark] - 4))
    value = EDGES[rng.integers(len(EDGES))] % 256**size
    changed[place : place + size] = value.to_bytes(size, "little")
    return bytes(changed)


def _member(rng: Rng, shape: tuple[int, ...], dtype: str, other: bool = False) -> bytes:
    """An `.npy`; another one than is wanted, or with a header that says something else than follows, if `other`."""
    values = rng.integers(0, 10, shape)
    file = io.BytesIO()
    if not other:
        np.save(file, np.asarray(values, dtype, order="F" if rng.random() < 0.2 else "C"))
        return file.getvalue()
    said = tuple(int(rng.choice([0, 1, 2, 4, 12, -1, 2**31, 2**62, 10**30])) for _ in range(rng.integers(0, 6)))
    dtype = _DTYPES[rng.integers(len(_DTYPES))] if rng.random() < 0.6 else dtype
    described: Any = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {
        "descr": described,
        "fortran_order": bool(rng.integers(2)),
        "shape": said if rng.random() < 0.6 else shape,
    }
    text = repr(header if rng.random() < 0.9 else any_value(rng)).encode("latin-1", "replace")
    if rng.random() < 0.05:
        text = b"(" * 9000
    text += b" " * 10 + b"\n"
    version = int(rng.choice([1, 1, 1, 2, 3, 9]))
    size = struct.pack("<H" if version == 1 else "<I", len(text) if rng.random() < 0.95 or version == 1 else 2**31)
    body = rng.bytes(int(np.prod(shape)) * 8) if rng.random() < 0.5 else values.astype("u1").tobytes()
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + body
