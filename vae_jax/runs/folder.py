"""The folder of a run: its paths, its config and manifest."""

import contextlib
import dataclasses
import datetime
import fcntl
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from vae_jax.config import Config, differences, from_mapping
from vae_jax.data import Dataset, ImageKind
from vae_jax.errors import UserError
from vae_jax.escaping import one_line
from vae_jax.files import is_leftover, read_json, write_json
from vae_jax.processes import is_writer
from vae_jax.provenance import surroundings
from vae_jax.runs import checkpoints

_IMAGES = "images.json"
_logger = logging.getLogger(__name__)


class RunFolder:
    """Where the files of a run are.

    Attributes:
        root: The folder itself.
        config: Every field of the run.
        manifest: Versions, devices, commit, data and command of each start.
        metrics: One row per log point.
        tensorboard: The same as event files.
        checkpoints: See `vae_jax.runs.checkpoints`.
        images: Grids as PNG.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.config = root / "config.json"
        self.manifest = root / "manifest.json"
        self.metrics = root / "metrics.jsonl"
        self.tensorboard = root / "tensorboard"
        self.checkpoints = root / "checkpoints"
        self.images = root / "images"

    def evaluations(self, replica: int) -> tuple[pathlib.Path, ...]:
        """Where `evaluate` writes its results for test images: of the run, and of one of several replicas alone."""
        return self.root / "evaluation.json", self.root / f"evaluation_replica{replica}.json"

    def write_json(self, path: pathlib.Path, content: Any) -> None:
        """Writes a file of the run, whole or not at all.

        Raises:
            UserError: If the file system refuses.
        """
        write_json(path, content, "make room, or choose another --workdir")

    def check_writable(self) -> None:
        """Finds out before long work whether its result can be kept.

        Raises:
            UserError: If not.
        """
        if not os.access(self.root, os.W_OK):
            raise UserError(
                f"'{self.root}' is not writable; make it so, or copy the run and name the copy with --workdir"
            )

    def read_config(self) -> Config:
        """The config the run was started with.

        Raises:
            UserError: If there is no run here, or its config can't be read.
        """
        if not self.config.is_file():
            raise UserError(f"'{self.root}' holds no run (no {self.config.name}); train first, or name a run's folder")
        content = _read(self.config, "restore it or start a new run", read_json)
        if isinstance(content, dict) and "model_type" in content:
            raise UserError(
                f"'{self.root}' was made by export and is no run; name a run's folder, or open it with vae_jax.load"
            )
        try:
            return from_mapping(content)
        except UserError as error:
            raise UserError(f"{self.config} is damaged, or of another version of this package: {error}") from error

    def check(self, config: Config) -> None:
        """Whether a run can start here, or the run that is here be continued.

        Raises:
            UserError: If the folder is another run's, or is some other folder with files in it.
        """
        if self.is_unused():
            return
        if self.config.is_file():
            different = differences(self.read_config(), config)
            if different:
                raise UserError(
                    f"'{self.root}' holds a run with another config ({'; '.join(different)}); "
                    "choose another --workdir, or the same config to continue"
                )
        elif self.root.is_dir() and any(not is_leftover(path) for path in self.root.iterdir()):
            raise UserError(
                f"'{self.root}' has files in it but no {self.config.name}; if it holds a run, restore that file, else "
                "choose another --workdir"
            )

    def is_unused(self) -> bool:
        """Whether a run was to start here and never came to its first row: another may take its place."""
        if not self.config.is_file() or checkpoints.folders(self.checkpoints):
            return False
        return not (self.metrics.exists() and self.metrics.stat().st_size)

    def last_step(self) -> int:
        """Steps that the newest checkpoint has seen, sound or not; 0 where there is none."""
        return max((checkpoint.step for checkpoint in checkpoints.listing(self.checkpoints)), default=0)

    def make(self) -> None:
        """Makes the folder itself.

        Raises:
            UserError: If it can't be made.
        """
        try:
            os.fsencode(self.root).decode()
            self.root.mkdir(parents=True, exist_ok=True)
        except UnicodeDecodeError as error:
            raise UserError(f"'{self.root}' is not UTF-8, which checkpoints need; choose another --workdir") from error
        except OSError as error:
            raise UserError(f"{self.root} can't be made ({error.strerror}); choose another --workdir") from error

    def start(self, config: Config, kind: ImageKind) -> None:
        """Writes the config that passed `check`.

        Raises:
            UserError: If it can't be written.
        """
        if self.is_unused():
            # It tells of the run that never began.
            with contextlib.suppress(OSError):
                self.manifest.unlink()
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
        mend = "restore it, or delete it if the data is at hand"
        return _read(path, mend, lambda path: ImageKind.from_mapping(read_json(path)))

    def check_data(self, data: Dataset) -> None:
        """Whether data is what the run was started with.

        Images that may be others than those of the last start are no error but a warning: the fingerprint of a folder
        has the times of its files, which copying changes.

        Raises:
            UserError: If the data has changed its form since then.
        """
        known, kind = None if self.is_unused() else self.image_kind(), data.kind
        # Runs that were started before classes had names are of the same kind.
        if known is not None and dataclasses.replace(known, class_names=kind.class_names) != kind:
            raise UserError(
                f"the data has changed since '{self.root}' was started: its images were {known}, and are {kind}; "
                "bring it back to what it was, or start a new run in another --workdir"
            )

        start = self.last_start().get("data")
        before = start.get("fingerprint") if isinstance(start, dict) else None
        if before and before != data.fingerprint and is_writer():
            _logger.warning(
                "the images of %s may have changed since '%s' was trained (their fingerprint was %s and is %s): what "
                "follows is about those that are there now, and test images may be among those it was trained on",
                data.name,
                self.root,
                before,
                data.fingerprint,
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[Callable[[], None]]:
        """Keeps other processes from training in this folder meanwhile.

        The operating system opens the lock when the process ends, however it ends.

        Yields:
            A function that raises `UserError` once the folder is no longer where it was.

        Raises:
            UserError: If another process is at it.
        """
        descriptor = os.open(self.root, os.O_RDONLY)

        def check_there() -> None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), os.stat(self.root)):
                    return
            raise UserError(
                f"'{self.root}' was moved or deleted while it was trained in; put it back and run the same command "
                "again to continue from its last checkpoint, or to start anew where there is none"
            )

        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another process is training in '{self.root}'; wait for it, or choose another --workdir"
                ) from error
            except OSError:
                pass  # A network file system without locks: a run there has to do without.
            yield check_there
        finally:
            os.close(descriptor)

    def add_to_manifest(self, command: list[str], data: Dataset) -> None:
        """Notes down this start of the run.

        Raises:
            UserError: If the earlier starts can't be read, or the file can't be written.
        """
        start = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command,
            **surroundings(),
            "data": {"name": data.name, "fingerprint": data.fingerprint},
        }
        self.write_json(self.manifest, {"starts": [*self._starts(), start]})

    def last_start(self) -> dict[str, Any]:
        """What the manifest says of the last start of the run; nothing, where there is no manifest.

        Raises:
            UserError: If it can't be read.
        """
        starts = self._starts()
        return starts[-1] if starts else {}

    def _starts(self) -> list[dict[str, Any]]:
        if not self.manifest.is_file():
            return []
        mend = "restore it or delete it, then continue"
        return _read(self.manifest, mend, lambda path: [dict(start) for start in read_json(path)["starts"]])


def _read(path: pathlib.Path, mend: str, parse: Callable[[pathlib.Path], Any]) -> Any:
    """What is in a file of a run.

    Raises:
        UserError: If it isn't there as this package writes it.
    """
    try:
        return parse(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} can't be read ({one_line(error)}); {mend}") from error
