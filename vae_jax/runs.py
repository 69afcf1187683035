"""The folder of a run: its paths, its config and manifest."""

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from vae_jax import checkpoints
from vae_jax.config import Config, differences, from_mapping
from vae_jax.data import Data, ImageKind
from vae_jax.errors import UserError
from vae_jax.files import write_json
from vae_jax.provenance import surroundings

_IMAGES = "images.json"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Where the files of a run are.

    Attributes:
        root: The folder itself.
    """

    root: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        """Every field of the run."""
        return self.root / "config.json"

    @property
    def manifest(self) -> pathlib.Path:
        """Versions, devices, commit, data and command of each start."""
        return self.root / "manifest.json"

    @property
    def metrics(self) -> pathlib.Path:
        """One row per log point."""
        return self.root / "metrics.jsonl"

    @property
    def tensorboard(self) -> pathlib.Path:
        """The same as event files."""
        return self.root / "tensorboard"

    @property
    def checkpoints(self) -> pathlib.Path:
        """See `vae_jax.checkpoints`."""
        return self.root / "checkpoints"

    @property
    def images(self) -> pathlib.Path:
        """Grids as PNG."""
        return self.root / "images"

    @property
    def evaluation(self) -> pathlib.Path:
        """What `evaluate` found."""
        return self.root / "evaluation.json"

    def write_json(self, path: pathlib.Path, content: Any) -> None:
        """Writes a file of the run, whole or not at all.

        Raises:
            UserError: If the file system doesn't take it.
        """
        write_json(path, content, "choose another --workdir")

    def check_writable(self) -> None:
        """Finds out before long work whether its result can be kept.

        Raises:
            UserError: If not.
        """
        probe = self.root / ".probe.unfinished"
        try:
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"nothing can be written to {self.root} ({error.strerror or error}); make it writable, or copy the run "
                "to a folder that is and name that with --workdir"
            ) from error

    def read_config(self) -> Config:
        """The config the run was started with.

        Raises:
            UserError: If there is no run here, or its config can't be read.
        """
        if not self.config.is_file():
            raise UserError(
                f"'{self.root}' holds no run (no {self.config.name}); train first, or set --workdir to a run's folder"
            )
        try:
            content = json.loads(self.config.read_text())
            if isinstance(content, dict) and "model_type" in content:
                raise UserError(
                    f"'{self.root}' was made by export and is no run; set --workdir to a run's folder, or open it "
                    "with vae_jax.load"
                )
            return from_mapping(content)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.config} can't be read ({error}); restore it or start a new run") from error

    def check(self, config: Config) -> None:
        """Whether a run can start here, or the run that is here be continued.

        Raises:
            UserError: If the folder is another run's, or is some other folder with files in it.
        """
        if self.config.is_file():
            different = differences(self.read_config(), config)
            if different:
                raise UserError(
                    f"'{self.root}' holds a run with another config ({'; '.join(different)}); "
                    "choose another --workdir, or the same config to continue"
                )
        elif checkpoints.listing(self.checkpoints):
            raise UserError(
                f"'{self.root}' holds checkpoints but no {self.config.name}; restore that file, or choose another "
                "--workdir"
            )
        elif self.root.exists() and not self.root.is_dir():
            raise UserError(f"'{self.root}' is a file; choose another --workdir")
        elif self.root.is_dir() and any(self.root.iterdir()):
            raise UserError(f"'{self.root}' has files in it but no run; choose another --workdir")

    def last_step(self) -> int:
        """Steps that the newest checkpoint has seen, sound or not; 0 where there is none."""
        return max((checkpoint.step for checkpoint in checkpoints.listing(self.checkpoints)), default=0)

    def start(self, config: Config, kind: ImageKind) -> None:
        """Makes the folder, and writes the config that it passed `check` with.

        Raises:
            UserError: If it can't be written.
        """
        self.write_json(self.config, dataclasses.asdict(config))
        self.write_json(self.root / _IMAGES, dataclasses.asdict(kind))

    def image_kind(self) -> ImageKind | None:
        """What images the model is for; None where a run doesn't say and its data must be asked.

        Raises:
            UserError: If the file is there but can't be read.
        """
        path = self.root / _IMAGES
        if not path.is_file():
            return None
        try:
            return ImageKind.from_mapping(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} can't be read ({error}); restore it, or delete it if the data is at hand"
            ) from error

    def check_images(self, kind: ImageKind) -> None:
        """Whether images are of the kind that the run was started with.

        Raises:
            UserError: If the data has changed its form since then.
        """
        known = self.image_kind()
        # Runs that were started before classes had names are of the same kind.
        if known is not None and dataclasses.replace(known, class_names=kind.class_names) != kind:
            raise UserError(
                f"the data has changed since '{self.root}' was started: its images were {known}, and are {kind}; "
                "bring it back to what it was, or start a new run in another --workdir"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training in this folder meanwhile.

        The operating system opens the lock when the process ends, however it ends.

        Raises:
            UserError: If another process is at it.
        """
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another process is training in '{self.root}'; wait for it, or choose another --workdir"
                ) from error
            except OSError:
                pass  # A network file system without locks: a run there has to do without.
            yield
        finally:
            os.close(descriptor)

    def add_to_manifest(self, command: list[str], data: Data) -> None:
        """Notes down this start of the run.

        Raises:
            UserError: If the earlier starts can't be read, or the file can't be written.
        """
        starts = self._starts()
        start = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command,
            **surroundings(),
            "data": {"name": data.dataset.name, "fingerprint": data.dataset.fingerprint},
        }
        self.write_json(self.manifest, {"starts": [*starts, start]})

    def last_start(self) -> dict[str, Any]:
        """What the manifest says of the last start of the run; nothing, where there is no manifest.

        Raises:
            UserError: If it can't be read.
        """
        starts = self._starts()
        return starts[-1] if starts else {}

    def _starts(self) -> list[dict[str, Any]]:
        try:
            return list(json.loads(self.manifest.read_text())["starts"]) if self.manifest.is_file() else []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.manifest} can't be read ({error}); restore it or delete it, then continue"
            ) from error


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line that was cut off in writing is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
