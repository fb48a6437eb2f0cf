"""Values of records: JSON, or Avro as Confluent's serializers write it, its schema kept by a registry."""

import io
import json
import struct
import urllib.error
import urllib.request
from typing import Any

from rapid.errors import ConfigurationError, PayloadError, StoreError
from rapid.kafka.subscription import EXTRA

MAGIC = 0
TIMEOUT_S = 5.0
MAX_SCHEMA_BYTES = 1 << 20


def json_of(value: bytes) -> Any:
    """Return a value that is JSON.

    Raises
    ------
    PayloadError
        Raised if it is none.
    """
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"the value is no JSON: {error}") from None


class Decoder:
    """Makes documents of values. Blocks while it asks the registry, once for each schema.

    Parameters
    ----------
    schemas
        URL of the schema registry; without one only JSON is read.

    Raises
    ------
    ConfigurationError
        Raised if Avro is to be read and fastavro is not installed.
    """

    def __init__(self, schemas: str = "", *, timeout_s: float = TIMEOUT_S) -> None:
        self._url = schemas.rstrip("/")
        if self._url and not self._url.startswith(("http://", "https://")):
            raise ConfigurationError("kafka.schemas", "must be http://host:port or https://host:port")
        self._timeout_s = timeout_s
        self._parsed: dict[int, Any] = {}
        self._avro: Any = None
        if self._url:
            try:
                import fastavro
            except ImportError as error:
                raise ConfigurationError("kafka.schemas", f"needs the package fastavro ({EXTRA}): {error}") from error
            self._avro = fastavro

    def decode(self, value: bytes) -> Any:
        """Return the document of a value.

        Raises
        ------
        PayloadError
            Raised if it is none.
        StoreError
            Raised if the registry does not answer.
        """
        if len(value) < 5 or value[0] != MAGIC:
            return json_of(value)
        if self._avro is None:
            raise PayloadError("the value is Avro, and no schema registry is configured (kafka.schemas)")
        number = struct.unpack(">I", value[1:5])[0]
        schema = self._parsed.get(number)
        if schema is None:
            schema = self._parsed[number] = self._fetch(number)
        try:
            return self._avro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        except Exception as error:  # noqa: BLE001 - whatever bytes that are no Avro make of the reader
            raise PayloadError(f"the value is not what schema {number} says: {error}") from None

    def _fetch(self, number: int) -> Any:
        try:
            with urllib.request.urlopen(  # noqa: S310 - the scheme was checked
                f"{self._url}/schemas/ids/{number}", timeout=self._timeout_s
            ) as answer:
                document = json.loads(answer.read(MAX_SCHEMA_BYTES))
            return self._avro.parse_schema(json.loads(document["schema"]))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                raise PayloadError(f"the registry knows no schema {number}") from None
            raise StoreError(f"the schema registry: HTTP {error.code}") from None
        except OSError as error:
            raise StoreError(f"the schema registry does not answer: {error}") from None
        except Exception as error:  # noqa: BLE001 - a registry's answer that is no schema, in any of many ways
            raise StoreError(f"the schema registry answers with no schema: {error}") from None
