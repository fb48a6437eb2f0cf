"""What waits to be sent, and what was given up: files, so that a restart loses nothing; bounded, so that a disk does not fill.

One file is one parcel: the documents of one batch. Parcels go in the order in which they came. What no longer fits pushes
out the oldest, which becomes a dead letter and is counted; dead letters push out their oldest in turn.
"""

import json
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rapid.errors import StoreError
from rapid.sinks.models import MetricDocument

MAX_DEAD = 1000
"""Dead letters kept."""

ABANDONED_S = 60.0
"""A file that is being written is younger; an older one was left by a process that died."""


class Parcel(BaseModel):
    """Documents that are sent together."""

    model_config = ConfigDict(extra="forbid")

    spooled_at: datetime
    name: str
    documents: list[MetricDocument]
    why: str = ""
    died_at: datetime | None = None


@dataclass(frozen=True)
class DeadLetter:
    """What was given up, and why; the documents are in its file."""

    file: Path
    name: str
    why: str
    died_at: datetime | None
    n_documents: int


class Spool:
    """The parcels of one sink. Its methods may be called from several threads.

    Parameters
    ----------
    folder
        A folder of its own.
    max_bytes
        What waiting parcels may take.
    max_dead
        Dead letters kept.

    Raises
    ------
    StoreError
        Raised, by any method, if the folder cannot be read or written.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 200_000_000, max_dead: int = MAX_DEAD) -> None:
        self._waiting = folder / "waiting"
        self._dead = folder / "dead"
        self._max_bytes = max_bytes
        self._max_dead = max_dead
        self._lock = threading.Lock()
        try:
            self._waiting.mkdir(parents=True, exist_ok=True)
            self._dead.mkdir(parents=True, exist_ok=True)
            for half_written in (*self._waiting.glob("*.new"), *self._dead.glob("*.new")):
                if datetime.now(UTC).timestamp() - half_written.stat().st_mtime > ABANDONED_S:
                    half_written.unlink(missing_ok=True)
            self._sizes = self._listed()
            self._n_dead = sum(1 for _ in self._dead.glob("*.json"))
        except OSError as error:
            raise StoreError(f"spool {folder}: {error}") from error
        self._next = max(
            (_number_of(file) for one in (self._waiting, self._dead) for file in one.glob("*.json")), default=0
        )

    def _listed(self) -> dict[str, int]:
        return {file.name: file.stat().st_size for file in sorted(self._waiting.glob("*.json"))}

    def _new_name(self) -> str:
        # A terminal may put dead letters back while the publish role runs: no two processes write one file.
        self._next += 1
        return f"{self._next:016d}-{secrets.token_hex(4)}.json"

    @property
    def n_waiting(self) -> int:
        """Parcels that wait."""
        return len(self._sizes)

    @property
    def n_dead(self) -> int:
        """Dead letters that are kept."""
        return self._n_dead

    def put(self, name: str, documents: Sequence[MetricDocument], *, now: datetime | None = None) -> int:
        """Let documents wait; returns how many parcels they pushed out."""
        if not documents:
            return 0
        parcel = Parcel(spooled_at=now or datetime.now(UTC), name=name, documents=list(documents))
        with self._lock:
            file = self._waiting / self._new_name()
            self._sizes[file.name] = _write(file, parcel)
            pushed_out = 0
            while sum(self._sizes.values()) > self._max_bytes and len(self._sizes) > 1:
                self._bury_file(next(iter(self._sizes)), f"pushed out: more than {self._max_bytes} bytes wait")
                pushed_out += 1
            return pushed_out

    def first(self) -> tuple[str, Parcel] | None:
        """Return the oldest parcel and its file's name; one that cannot be read is buried."""
        while True:
            with self._lock:
                name = next(iter(self._sizes), None)
                if name is None:
                    self._sizes = self._listed()  # what another process has put back
                    name = next(iter(self._sizes), None)
                if name is None:
                    return None
                try:
                    return name, Parcel.model_validate_json((self._waiting / name).read_bytes())
                except FileNotFoundError:
                    del self._sizes[name]
                except ValidationError as error:
                    self._bury_file(name, f"cannot be read: {error.error_count()} faults")
                except OSError as error:
                    raise StoreError(f"spool: {error}") from error

    def keep(self, name: str, parcel: Parcel) -> None:
        """Let what is left of a parcel wait where it was; nothing left, and it is done."""
        with self._lock:
            if name not in self._sizes:
                return
            if parcel.documents:
                self._sizes[name] = _write(self._waiting / name, parcel)
                return
            del self._sizes[name]
            (self._waiting / name).unlink(missing_ok=True)

    def bury(self, name: str, documents: Sequence[MetricDocument], why: str) -> None:
        """Set documents aside for good."""
        if not documents:
            return
        with self._lock:
            self._bury(Parcel(spooled_at=datetime.now(UTC), name=name, documents=list(documents), why=why))

    def dead(self, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, newest first."""
        letters = []
        for file in sorted(self._dead.glob("*.json"), reverse=True)[:limit]:
            try:
                parcel = Parcel.model_validate_json(file.read_bytes())
                letters.append(DeadLetter(file, parcel.name, parcel.why, parcel.died_at, len(parcel.documents)))
            except (OSError, ValidationError):
                letters.append(DeadLetter(file, file.name, "cannot be read", None, 0))
        return letters

    def retry_dead(self) -> int:
        """Let all dead letters wait again; how many."""
        n_revived = 0
        for letter in self.dead(self._max_dead)[::-1]:
            try:
                parcel = Parcel.model_validate_json(letter.file.read_bytes())
            except (OSError, ValidationError):
                continue
            self.put(parcel.name, parcel.documents)
            with self._lock:
                letter.file.unlink(missing_ok=True)
                self._n_dead -= 1
            n_revived += 1
        return n_revived

    def _bury_file(self, name: str, why: str) -> None:
        del self._sizes[name]
        file = self._waiting / name
        try:
            parcel = Parcel.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            parcel = Parcel(spooled_at=datetime.now(UTC), name=name, documents=[])
        parcel.why = why
        self._bury(parcel)
        file.unlink(missing_ok=True)

    def _bury(self, parcel: Parcel) -> None:
        parcel.died_at = datetime.now(UTC)
        _write(self._dead / self._new_name(), parcel)
        self._n_dead += 1
        if self._n_dead > self._max_dead:
            for file in sorted(self._dead.glob("*.json"))[: self._n_dead - self._max_dead]:
                file.unlink(missing_ok=True)
                self._n_dead -= 1


def _number_of(file: Path) -> int:
    number = file.name.partition("-")[0]
    return int(number) if number.isdecimal() and len(number) < 20 else 0


def _write(file: Path, parcel: Parcel) -> int:
    """Write a parcel whole or not at all; returns its size."""
    text = json.dumps(parcel.model_dump(mode="json"), allow_nan=False).encode()
    temporary = file.with_suffix(".new")
    try:
        temporary.write_bytes(text)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"spool: {error}") from error
    return len(text)
