"""Which files of a directory are decided, in memory that does not grow with the night."""

from collections import OrderedDict
from collections.abc import Callable

from rapid.arrival.look import Stamp

KEPT = 40_000
"""Files that are remembered, if what is older need not be looked at again: 200 exposures of 205 detectors."""
MOST = 250_000
"""Files that are remembered at most: more than a night of 1000 exposures of 205 detectors, all in one folder."""


class SettledFiles:
    """Remembers how files were when they were decided.

    A folder is forgotten as a whole, the one longest without a new file first. Of name and stamp only hashes are kept:
    a file is taken for decided by mistake if both agree with another's, once in 10^26 files.

    Parameters
    ----------
    close
        Told of a folder that is to be forgotten; returns whether it may be: whether nothing will ask for its files
        again unless something happens to them.
    """

    def __init__(self, close: Callable[[str], bool], *, kept: int = KEPT, most: int = MOST) -> None:
        self._close = close
        self._kept = kept
        self._most = most
        self._folders: OrderedDict[str, dict[int, int]] = OrderedDict()
        self._n = 0
        self._ask_at = kept

    def __len__(self) -> int:
        return self._n

    def holds(self, path: str, stamp: Stamp) -> bool:
        """Return whether a file was decided as it is."""
        folder, _, name = path.rpartition("/")
        files = self._folders.get(folder)
        return files is not None and files.get(hash(name)) == hash(stamp)

    def add(self, path: str, stamp: Stamp) -> None:
        """Take in that a file is decided."""
        folder, _, name = path.rpartition("/")
        files = self._folders.get(folder)
        if files is None:
            files = self._folders[folder] = {}
        self._n += hash(name) not in files
        files[hash(name)] = hash(stamp)
        self._folders.move_to_end(folder)
        if self._n > self._ask_at:
            self._forget(folder)

    def _forget(self, current: str) -> None:
        for folder in list(self._folders):
            if self._n <= self._kept:
                break
            if folder != current and (self._close(folder) or self._n > self._most):
                self._n -= len(self._folders.pop(folder))
        if self._n > self._most:
            # All in one folder: the older half.
            files = self._folders[current]
            self._folders[current] = dict(list(files.items())[len(files) // 2 :])
            self._n -= len(files) - len(self._folders[current])
        # Folders that may not be forgotten yet are not asked about for every file.
        self._ask_at = max(self._kept, self._n) + self._kept // 40
