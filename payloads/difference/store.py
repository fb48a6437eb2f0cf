"""A folder of templates: images of the sky without what comes and goes, by tile and band, in versions.

``templates.yaml`` has the size of their pixels; ``BAND/TILE/vNNNN.fits`` are the templates. The highest number is in force,
and the one before it stays. Files are written beside their place and moved there: a reader meets whole ones only.
"""

import contextlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from payloads.difference.template_file import (
    TILE_FOLDER,
    VERSION_FILE,
    Template,
    TemplateRecord,
    read_record,
    read_template,
)
from payloads.difference.tiles import Tile
from rapid.errors import ConfigurationError, StoreError

FACTS = "templates.yaml"
N_KEPT = 2
"""Versions of a template that stay: the one in force, and the one before, which a worker may just be reading."""
_BAND = re.compile(r"[A-Za-z0-9_]{1,32}")


class StoreFacts(BaseModel):
    """What ``templates.yaml`` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale_arcsec: float = Field(gt=0.02, le=10, description="Side of a template's pixel.")


class TemplateStore:
    """A folder of templates, opened; keeps those it read last.

    Parameters
    ----------
    directory
        Where ``templates.yaml`` is.
    cache_mb
        Most memory that templates stay in; the one asked for is always returned.

    Raises
    ------
    ConfigurationError
        Raised, naming the field, if the directory holds no templates.
    """

    def __init__(self, directory: Path, *, cache_mb: float = 1024.0) -> None:
        self.directory = Path(directory)
        self._limit = int(cache_mb * 2**20)
        path = self.directory / FACTS
        try:
            self.facts = StoreFacts.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigurationError("templates", f"{path} cannot be read: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or FACTS
            raise ConfigurationError(f"{path}: {field}", first["msg"]) from error
        self._cache: OrderedDict[tuple[str, Tile], tuple[int, Template]] = OrderedDict()

    def get(self, tile: Tile, band: str) -> Template | None:
        """Return the template in force; None if there is none.

        One that is in memory is read again only if the tile's folder has changed since.

        Raises
        ------
        StoreError
            Raised, naming the file, if it cannot be read.
        """
        key = (band, tile)
        folder = self._folder(tile, band)
        try:
            changed_ns = folder.stat().st_mtime_ns
        except FileNotFoundError:
            self._cache.pop(key, None)
            return None
        except OSError as error:
            raise StoreError(f"templates {folder} cannot be read: {error.strerror}") from error
        held = self._cache.get(key)
        if held is not None and held[0] == changed_ns:
            self._cache.move_to_end(key)
            return held[1]
        self._cache.pop(key, None)
        path = self.newest(tile, band)
        if path is None:
            return None
        template = read_template(path)
        if abs(template.geometry.scale_arcsec - self.facts.scale_arcsec) > 1e-6:
            raise StoreError(f"template {path} has pixels of another size than {FACTS} says")
        self._cache[key] = (changed_ns, template)
        while self.n_bytes > self._limit and len(self._cache) > 1:
            self._cache.popitem(last=False)
        return template

    @property
    def n_bytes(self) -> int:
        """What is in memory."""
        return sum(template.n_bytes for _, template in self._cache.values())

    @property
    def held(self) -> frozenset[tuple[str, Tile]]:
        """Bands and tiles that are in memory."""
        return frozenset(self._cache)

    def has_room(self) -> bool:
        """Whether another template fits into memory without one leaving it, as large as those there are."""
        largest = max((template.n_bytes for _, template in self._cache.values()), default=0)
        return self.n_bytes + largest <= self._limit

    def let_go(self, keys: Iterable[tuple[str, Tile]]) -> None:
        """Forget templates that are in memory."""
        for key in keys:
            self._cache.pop(key, None)

    def newest(self, tile: Tile, band: str) -> Path | None:
        """Return the file in force; None if there is none."""
        versions = self._versions(tile, band)
        return versions[-1][1] if versions else None

    def bands(self) -> list[str]:
        """Return the bands that there are templates of."""
        return sorted(path.name for path in self.directory.iterdir() if path.is_dir() and _BAND.fullmatch(path.name))

    def records(self, *, band: str | None = None) -> list[TemplateRecord]:
        """Return what there is, by band and tile.

        Raises
        ------
        StoreError
            Raised, naming the file, if one cannot be read.
        """
        found = []
        for name in self.bands():
            if band is not None and name != band:
                continue
            for folder in sorted((self.directory / name).iterdir()):
                match = TILE_FOLDER.fullmatch(folder.name)
                if match is None:
                    continue
                path = self.newest(Tile(int(match[1]), int(match[2])), name)
                if path is not None:
                    found.append(read_record(path))
        return found

    def put(self, tile: Tile, band: str, data: bytes) -> tuple[int, bool]:
        """Make a template the one in force.

        Returns
        -------
        version, is_new
            The same bytes again make no new version.

        Raises
        ------
        StoreError
            Raised if it cannot be written.
        """
        if not _BAND.fullmatch(band):
            raise StoreError(f"{band!r} cannot be the name of a band")
        folder = self._folder(tile, band)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            versions = self._versions(tile, band)
            if versions and versions[-1][1].read_bytes() == data:
                return versions[-1][0], False
            number = versions[-1][0] + 1 if versions else 1
            _write_whole(folder / f"v{number:04d}.fits", data)
            for _, old in versions[: max(len(versions) + 1 - N_KEPT, 0)]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"template {folder} cannot be written: {error.strerror}") from error
        return number, True

    def _folder(self, tile: Tile, band: str) -> Path:
        return self.directory / band / tile.name

    def _versions(self, tile: Tile, band: str) -> list[tuple[int, Path]]:
        try:
            names = [path.name for path in self._folder(tile, band).iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"templates {self._folder(tile, band)} cannot be read: {error.strerror}") from error
        found = [
            (int(match[1]), self._folder(tile, band) / name)
            for name in names
            if (match := VERSION_FILE.fullmatch(name))
        ]
        return sorted(found)


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def make_store(directory: Path, *, scale_arcsec: float) -> TemplateStore:
    """Open a folder of templates, made if it is new.

    Raises
    ------
    ConfigurationError
        Raised if it has other things in it, or pixels of another size.
    """
    directory = Path(directory)
    path = directory / FACTS
    if not path.exists():
        try:
            if directory.exists() and any(directory.iterdir()):
                raise ConfigurationError("templates", f"{directory} has other things in it, and no {FACTS}")
            facts = StoreFacts(scale_arcsec=scale_arcsec)
            directory.mkdir(parents=True, exist_ok=True)
            _write_whole(path, yaml.safe_dump(facts.model_dump(mode="json"), sort_keys=False).encode())
        except ValidationError as error:
            raise ConfigurationError("scale_arcsec", error.errors()[0]["msg"]) from error
        except OSError as error:
            raise ConfigurationError("templates", f"{directory} cannot be written: {error.strerror}") from error
    store = TemplateStore(directory)
    if abs(store.facts.scale_arcsec - scale_arcsec) > 1e-6:
        raise ConfigurationError(
            "scale_arcsec", f"the templates of {directory} have pixels of {store.facts.scale_arcsec} arcsec"
        )
    return store
