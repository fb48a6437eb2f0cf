"""The thread that talks to the repository: batches of files in, one outcome for each.

A batch goes in as a whole; one that the repository refuses is halved until the file that is to blame is alone, so that
it stops no other. A repository that does not answer refuses nothing: the batch is untouched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from rapid.butler.files import PlainFile, ingest_file
from rapid.butler.raws import Ingested, RawFile, RawShelf, Transfer
from rapid.butler.repository import Repository
from rapid.camera.models import Camera
from rapid.errors import NotFoundError, PayloadError, RapidError, RawError, Retry, StoreError, WrongCameraError
from rapid.ingest.decide import Failure
from rapid.ingest.files import FileHandler, FileRule, FoundFile, filled, find_rule, handler_of, is_day
from rapid.ingest.look import look_at_raw, size_of
from rapid.ingest.models import Fate, Item

log = structlog.get_logger()

_FATES = {Ingested.NEW: Fate.INGESTED, Ingested.ALREADY: Fate.ALREADY, Ingested.REPLACED: Fate.REPLACED}


@dataclass(frozen=True)
class Outcome:
    """What became of a file: a fate, or a failure and its reason."""

    item: Item
    fate: Fate | None = None
    failure: Failure | None = None
    code: str = ""
    reason: str = ""


class IngestDesk:
    """Knows a repository and the rules for files that are no raws. `ingest` is called from one thread only.

    Parameters
    ----------
    open_repository
        Opens it; called again if it failed. Raises `StoreError` for what may pass.
    was_handled
        Whether a handler has taken a file with this content, and `note_handled` that it has: by URI and mark.
    """

    def __init__(
        self,
        camera: Camera,
        open_repository: Callable[[], Repository],
        *,
        run: str,
        transfer: Transfer = Transfer.DIRECT,
        formatter: str = "",
        rules: tuple[FileRule, ...] = (),
    ) -> None:
        self._camera = camera
        self._open_repository = open_repository
        self._run = run
        self._transfer = transfer
        self._formatter = formatter
        self._rules = rules
        self._handlers: dict[str, FileHandler | None] = {rule.pattern: handler_of(rule) for rule in rules}
        self._repository: Repository | None = None
        self._shelf: RawShelf | None = None

    @property
    def run(self) -> str:
        """RUN collection of raws."""
        return self._run

    def open(self) -> None:
        """Open the repository, if it is not.

        Raises
        ------
        StoreError
            Raised if it does not answer.
        ConfigurationError
            Raised if it cannot be used.
        """
        if self._shelf is None:
            if self._repository is None:
                self._repository = self._open_repository()
            self._shelf = RawShelf(self._repository, run=self._run, transfer=self._transfer, formatter=self._formatter)

    def close(self) -> None:
        """Close the repository."""
        if self._repository is not None:
            self._repository.close()
        self._repository = self._shelf = None

    def look(self, item: Item) -> Outcome | None:
        """Read what an item needs to be ingested; return its end if it has come to one. Safe for threads."""
        try:
            rule = find_rule(item.uri, self._rules, self._camera.name)
            if rule is not None:
                if item.size_bytes is None and rule[0].handler != "ignore":
                    item.size_bytes = size_of(item.uri)
                return None
            if item.header is None:
                item.header, item.size_bytes = look_at_raw(item.uri, self._camera, item.size_bytes)
            if item.header.info.detector not in self._camera.by_id:
                raise WrongCameraError(f"{self._camera.name} has no detector {item.header.info.detector_name}")
        except (RawError, PayloadError) as error:
            return Outcome(item, failure=Failure.BAD_FILE, code=error.code, reason=error.message)
        except NotFoundError as error:
            return Outcome(item, failure=Failure.REFUSED, code="file_gone", reason=error.message)
        except StoreError as error:
            return Outcome(item, failure=Failure.UNREACHABLE, code=error.code, reason=error.message)
        except RapidError as error:
            return Outcome(item, failure=Failure.BAD_FILE, code=error.code, reason=error.message)
        return None

    def ingest(self, items: Sequence[Item]) -> list[Outcome]:
        """Ingest files that were looked at.

        Returns
        -------
        outcomes : list of Outcome
            One for each, in any order. If the repository does not answer, all that is left are outages.
        """
        outcomes: list[Outcome] = []
        raws: dict[tuple[int, int, bool], Item] = {}
        rest: list[Item] = []
        for item in items:
            if find_rule(item.uri, self._rules, self._camera.name) is not None:
                outcomes.append(self._handle(item))
            elif item.header is not None:
                info = item.header.info
                if raws.setdefault((info.exposure_id, info.detector, info.is_guider), item) is not item:
                    rest.append(item)  # the same raw by two doors: one after the other
        outcomes += self._ingest_raws(list(raws.values()))
        for item in rest:
            outcomes += self._ingest_raws([item])
        return outcomes

    def _ingest_raws(self, items: list[Item]) -> list[Outcome]:
        if not items:
            return []
        files = [
            RawFile(item.uri, item.header.info, item.size_bytes or 0, replaces=item.replaces)
            for item in items
            if item.header is not None
        ]
        try:
            self.open()
            assert self._shelf is not None  # noqa: S101 - open leaves it so
            found = self._shelf.ingest(files)
        except StoreError as error:
            return [Outcome(item, failure=Failure.OUTAGE, code=error.code, reason=error.message) for item in items]
        except Exception as error:  # noqa: BLE001 - whatever the Butler raises for one file must stop no other
            if len(items) > 1:
                half = len(items) // 2
                return self._ingest_raws(items[:half]) + self._ingest_raws(items[half:])
            code = "file_gone" if isinstance(error, FileNotFoundError) else "ingest_refused"
            return [Outcome(items[0], failure=Failure.REFUSED, code=code, reason=_reason(error))]
        return [Outcome(item, fate=_FATES[what]) for item, what in zip(items, found, strict=True)]

    def _handle(self, item: Item) -> Outcome:
        """Have a file that is no raw taken by its rule's handler."""
        match = find_rule(item.uri, self._rules, self._camera.name)
        assert match is not None  # noqa: S101 - the caller has asked
        rule, fields = match
        if rule.handler == "ignore":
            return Outcome(item, fate=Fate.IGNORED)
        try:
            if rule.handler == "dataset":
                fields = {**fields, "day_obs": filled(rule.day_obs, fields, what="day_obs")}
                self.open()
                assert self._repository is not None  # noqa: S101 - open leaves it so
                is_new = ingest_file(self._repository, _plain(item.uri, rule, fields), transfer=self._transfer)
                return Outcome(item, fate=Fate.HANDLED if is_new else Fate.ALREADY)
            handler = self._handlers[rule.pattern]
            assert handler is not None  # noqa: S101 - neither dataset nor ignore
            handler(FoundFile(item.uri, item.size_bytes or 0, rule, fields))
        except StoreError as error:
            # The repository away is an outage; a handler's partner away is a matter of this file.
            failure = Failure.OUTAGE if rule.handler == "dataset" else Failure.REFUSED
            return Outcome(item, failure=failure, code=error.code, reason=error.message)
        except RapidError as error:
            failure = Failure.BAD_FILE if error.retry is Retry.NEVER else Failure.REFUSED
            return Outcome(item, failure=failure, code=error.code, reason=error.message)
        except Exception as error:  # noqa: BLE001 - a handler of somebody else's must stop no other file
            return Outcome(item, failure=Failure.REFUSED, code="handler_failed", reason=_reason(error))
        return Outcome(item, fate=Fate.HANDLED)

    def hands_on(self, item: Item) -> bool:
        """Whether an item goes to a handler outside the repository, which nobody tells what was there before."""
        match = find_rule(item.uri, self._rules, self._camera.name)
        return match is not None and match[0].handler not in {"dataset", "ignore"}


def _plain(uri: str, rule: FileRule, fields: dict[str, str]) -> PlainFile:
    day_obs = fields["day_obs"]
    if not is_day(day_obs):
        raise PayloadError(f"day_obs {day_obs!r} is no day as YYYYMMDD")
    return PlainFile(
        uri=uri,
        dataset_type=filled(rule.dataset_type, fields, what="dataset_type"),
        storage_class=rule.storage_class,
        formatter=rule.formatter,
        run=filled(rule.run, fields, what="run"),
        day_obs=int(day_obs),
        group=filled(rule.group, fields, what="group"),
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:500]
