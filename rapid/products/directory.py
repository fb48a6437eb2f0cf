"""Products in a directory."""

import errno
import os
import secrets
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
    if not _write_unnamed(path, data, durable=durable):
        _write_named(path, data, durable=durable)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write_unnamed(path: Path, data: bytes, *, durable: bool) -> bool:
    """Write a file that gets its name once it is whole: a writer that is killed leaves nothing behind.

    Returns
    -------
    bool
        False where the system has no files without a name (not Linux, some network file systems).
    """
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        descriptor = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE, 0o666)  # less the umask, as any file
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL} and path.parent.is_dir():
            return False
        raise
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(descriptor)
        try:
            _give_name(descriptor, path)
        except FileExistsError:
            # A link replaces nothing; a rename does. The name in between lives for microseconds.
            between = path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
            _give_name(descriptor, between)
            between.replace(path)
        except FileNotFoundError:
            return False  # no /proc to reach the file by
    return True


def _give_name(descriptor: int, path: Path) -> None:
    # With a folder given, Python follows the link in /proc to the file itself. Source: open(2), "O_TMPFILE".
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=0, follow_symlinks=True)


def _write_named(path: Path, data: bytes, *, durable: bool) -> None:
    """Write a file under a temporary name first."""
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
