r"""Files that are no raws, as those of the summit's Large File Annex: a pattern says whose they are, a handler takes them.

Rules are read from a YAML file, tried in order; the first whose pattern is found in the file's path counts::

    rules:
      - pattern: '/(?P<csc>\w+)/(?P<generator>\w+)/(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d)/[^/]+\.ecsv$'
        handler: dataset
        dataset_type: lfa_{csc}_{generator}
        storage_class: AstropyTable
        formatter: lsst.daf.butler.formatters.astropyTable.AstropyTableFormatter
        day_obs: '{year}{month}{day}'
      - pattern: '\.log$'
        handler: ignore
      - pattern: '/AllSky/.*\.jpg$'
        handler: webhook
        url: http://allsky:8080/new

A site's own handlers come as entry points of the group ``rapid.ingest_handlers``.
"""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rapid.errors import ConfigurationError, PayloadError, StoreError
from rapid.plugins import entries_of, load_entry

HANDLERS = "rapid.ingest_handlers"
OWN_HANDLERS = ("dataset", "ignore", "webhook")
WEBHOOK_S = 5.0


class FileRule(BaseModel):
    """What is done with files whose path a pattern is found in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str = Field(description="Regular expression, searched for in the path; its named groups are the fields.")
    handler: str = Field(description="dataset, webhook, ignore, or the name of an installed handler.")
    dataset_type: str = Field(default="", description="For dataset: its dataset type; may have {fields}.")
    storage_class: str = Field(default="RapidFile", description="For dataset: how it is read; as bytes if left out.")
    formatter: str = Field(
        default="", description="For dataset: the class that reads it; the repository's if left out."
    )
    run: str = Field(default="{camera}/files/{day_obs}", description="For dataset: RUN collection; may have {fields}.")
    day_obs: str = Field(default="{day_obs}", description="Observing day YYYYMMDD; may have {fields}.")
    group: str = Field(
        default="{name}",
        description="What tells files of one type and day apart; may have {fields}; their name if left out.",
    )
    url: str = Field(default="", description="For webhook: where the file's path and fields are posted as JSON.")
    options: dict[str, Any] = Field(default_factory=dict, description="For an installed handler.")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _is_whole(self) -> "FileRule":
        if self.handler == "dataset" and not self.dataset_type:
            raise ValueError("handler dataset needs a dataset_type")
        if self.handler == "webhook" and urlsplit(self.url).scheme not in {"http", "https"}:
            raise ValueError("handler webhook needs a url, http:// or https://")
        if self.handler not in OWN_HANDLERS and self.handler not in entries_of(HANDLERS):
            known = ", ".join((*OWN_HANDLERS, *entries_of(HANDLERS)))
            raise ValueError(f"no handler {self.handler!r} (known: {known})")
        return self


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rules: tuple[FileRule, ...] = ()


@dataclass(frozen=True)
class FoundFile:
    """A file and the rule it falls under.

    Attributes
    ----------
    fields
        Named groups of the pattern, and ``name``, ``camera``, ``day_obs``.
    """

    uri: str
    size_bytes: int
    rule: FileRule
    fields: dict[str, str] = field(default_factory=dict)


FileHandler = Callable[[FoundFile], None]
"""Takes a file, in a thread. May be called again for the same file. Raises `RapidError`, whose ``retry`` counts."""


def load_rules(path: Path | None) -> tuple[FileRule, ...]:
    """Return the rules of a YAML file; none without one.

    Raises
    ------
    ConfigurationError
        Raised, naming rule and field, for anything in it that is not valid.
    """
    if path is None:
        return ()
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _Rules.model_validate({} if document is None else document).rules
    except OSError as error:
        raise ConfigurationError("ingest_rules", f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError("ingest_rules", f"{path} is no YAML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError("ingest_rules", f"{path}: {place}: {first['msg']}") from None


def find_rule(uri: str, rules: tuple[FileRule, ...], camera: str) -> tuple[FileRule, dict[str, str]] | None:
    r"""Return the rule of a path and what its pattern found; None if none is for it.

    Examples
    --------
    >>> rule = FileRule(pattern=r"(?P<csc>\w+)/(?P<day_obs>\d{8})/", handler="ignore")
    >>> find_rule("s3://lfa/MTMount/20261120/x.log", (rule,), "LSSTCam")[1]["csc"]
    'MTMount'
    """
    for rule in rules:
        match = re.search(rule.pattern, uri)
        if match is not None:
            fields = {name: text for name, text in match.groupdict().items() if text is not None}
            return rule, {"camera": camera, "name": uri.rsplit("/", 1)[-1], **fields}
    return None


def filled(template: str, fields: dict[str, str], *, what: str) -> str:
    """Return a template with its fields filled in.

    Raises
    ------
    PayloadError
        Raised if the pattern found no such field.
    """
    try:
        return template.format(**fields)
    except (KeyError, IndexError, ValueError) as error:
        raise PayloadError(f"{what} {template!r}: the pattern has no field {error}") from None


def is_day(text: str) -> bool:
    """Whether a text is a day as YYYYMMDD.

    Examples
    --------
    >>> is_day("20261120"), is_day("20269920")
    (True, False)
    """
    try:
        return len(text) == 8 and text.isdecimal() and bool(date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:]}"))
    except ValueError:
        return False


def handler_of(rule: FileRule) -> FileHandler | None:
    """Return a rule's handler; None for ``dataset``, which is the repository's, and ``ignore``.

    Raises
    ------
    ConfigurationError
        Raised if it cannot be imported.
    """
    if rule.handler in {"dataset", "ignore"}:
        return None
    if rule.handler == "webhook":
        return post_to_webhook
    handler: FileHandler = load_entry(HANDLERS, rule.handler)
    return handler


def post_to_webhook(found: FoundFile) -> None:
    """Post a file's path and fields to the rule's address.

    Raises
    ------
    StoreError
        Raised if nobody answers, or the answer is no success: worth a retry.
    PayloadError
        Raised if the request is refused for what it is (4xx).
    """
    body = json.dumps({"uri": found.uri, "size_bytes": found.size_bytes, "fields": found.fields}).encode()
    request = urllib.request.Request(  # noqa: S310 - the rule checks the scheme
        found.rule.url, data=body, headers={"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=WEBHOOK_S):  # noqa: S310 - as above
            return
    except urllib.error.HTTPError as error:
        error.close()
        if 400 <= error.code < 500 and error.code not in {408, 429}:
            raise PayloadError(f"{found.rule.url} refuses the file: HTTP {error.code}") from None
        raise StoreError(f"{found.rule.url}: HTTP {error.code}") from None
    except OSError as error:
        raise StoreError(f"{found.rule.url} does not answer: {error}") from None
