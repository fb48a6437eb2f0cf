"""Products in a directory."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rapid.errors import NotFoundError, StoreError
from rapid.products.naming import check_key, is_safe_key

_TEMPORARY = ".put-"
"""Prefix of a file being written; no key begins with a dot, so it is never listed."""


def write_whole(path: Path, data: bytes, *, durable: bool) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Parameters
    ----------
    durable
        Wait until disk has it: it then survives a power cut, for some ms.

    Raises
    ------
    OSError
        Raised if the disk is full or the folder cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: a rename is atomic only within one file system.
    descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # mkstemp lets only the owner read; products are for everybody the umask allows.
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _umask() -> int:
    """Return the process's umask without changing it: setting it, even for a moment, races other threads."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022


class DirectoryStore:
    """Products as files under one folder.

    Parameters
    ----------
    root
        The folder; made if it is not there.
    durable
        Wait for the disk on every write. Off by default: a product can be made again from its raw.
    """

    def __init__(self, root: Path, *, durable: bool = False) -> None:
        self.root = root.absolute()
        self.durable = durable
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the products folder {self.root}: {error.strerror}") from error

    def _path(self, key: str) -> Path:
        return self.root / key

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> None:  # noqa: ARG002 - files have none
        """Write a product whole, in place of an older one of the same key."""
        path = self._path(check_key(key))
        try:
            write_whole(path, data, durable=self.durable)
        except OSError as error:
            raise StoreError(f"cannot write {key}: {error.strerror}", key=key, errno=error.errno) from error

    def get(self, key: str) -> bytes:
        """Return a product's bytes."""
        if not is_safe_key(key):
            raise NotFoundError("product", key)
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFoundError("product", key) from error
        except OSError as error:
            raise StoreError(f"cannot read {key}: {error.strerror}", key=key, errno=error.errno) from error

    def exists(self, key: str) -> bool:
        """Whether a product is there."""
        return is_safe_key(key) and self._path(key).is_file()

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that begin with a prefix, in order."""
        # The last, perhaps incomplete, part of the prefix selects within its folder.
        folder, _, start = prefix.rpartition("/")
        if folder and not is_safe_key(folder):
            return
        yield from self._walk(self.root / folder if folder else self.root, f"{folder}/" if folder else "", start)

    def _walk(self, folder: Path, before: str, start: str) -> Iterator[str]:
        try:
            with os.scandir(folder) as entries:
                # A slash sorts as it does in whole keys, so that the order is that of a bucket.
                found = sorted((e.name + "/" if e.is_dir() else e.name) for e in entries if e.name[:1] != ".")
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in found:
            if not name.startswith(start):
                continue
            if name.endswith("/"):
                yield from self._walk(folder / name, before + name, "")
            else:
                yield before + name

    def delete(self, key: str) -> None:
        """Remove a product; none there is no error."""
        path = self._path(check_key(key))
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise StoreError(f"cannot delete {key}: {error.strerror}", key=key, errno=error.errno) from error

    def url(self, key: str) -> str:
        """Return where a product is, as a ``file:`` URL."""
        return self._path(check_key(key)).as_uri()
