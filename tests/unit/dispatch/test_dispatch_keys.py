"""The table of keys, and the Lua that uses them."""

import re
from importlib import resources

import pytest

from rapid.dispatch import keys
from rapid.dispatch.library import function_name, is_loaded, library_source
from rapid.errors import ConfigurationError


def lua_key_names() -> set[str]:
    """Names of keys in the server-side functions: what follows the prefix, as far as it is constant."""
    source = library_source()
    found = set(re.findall(r"\bP \.\. '([a-z_]+:?)'", source)) | set(
        re.findall(r"keys\[1\] \.\. '([a-z_]+:?)'", source)
    )
    found |= set(re.findall(r"wake\(c, '([a-z_]+)'\)", source))
    return found


def test_every_key_in_the_functions_is_in_the_table() -> None:
    table = {spec.name.partition(":")[0] for spec in keys.KEYS}
    used = {name.rstrip(":") for name in lua_key_names()}
    assert used - table == set()
    # No function touches these: they are written and read as they are.
    plain = {
        "raws",
        "metrics",
        "publish_status",
        "publish_marks",
        "publish_sent",
        "ingested",
        "visit",
        "visit_detectors",
        "visits",
        "visits_recent",
    }
    assert {name for name in table - used if not name.startswith("ingest_")} - plain == set()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("batch:prompt.2026112000001.quicklook", "batch:BATCH"),
        ("own:science:worker-3.host_a", "own:POOL:WORKER"),
        ("pinned:wavefront:191", "pinned:POOL:DETECTOR"),
        ("dead:prompt.2026112000001.quicklook.gather", "dead:LETTER"),
        ("dead", "dead"),
        ("timers", "timers"),
        ("nonsense", None),
        ("batch:", None),
    ],
)
def test_a_key_is_found_in_the_table(name: str, found: str | None) -> None:
    spec = keys.find_key(name)
    assert (spec.name if spec else None) == found


def test_all_keys_of_an_instrument_share_a_hash_tag() -> None:
    assert keys.prefix("LSST-TS8") == "rapid:{LSST-TS8}:"


@pytest.mark.parametrize("name", ["", "a b", "a}b", "{x}", "é"])
def test_an_instrument_that_cannot_be_a_key_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        keys.prefix(name)


def test_the_table_renders_as_markdown() -> None:
    lines = keys.render_keys().splitlines()
    assert len(lines) == len(keys.KEYS) + 2
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 7 for line in lines)


def test_no_function_scans_the_keys_or_trusts_another_clock() -> None:
    source = library_source()
    assert "'KEYS'" not in source
    assert "'SCAN'" not in source
    assert "os.time" not in source
    assert "math.random" not in source


def test_the_library_is_known_by_its_checksum() -> None:
    source = library_source()
    name = re.findall(r"register_function\('(rapid_v1_is_[0-9a-f]+)'", source)
    assert len(name) == 1
    assert is_loaded([[b"library_name", b"rapid_v1", b"functions", [[b"name", name[0].encode()]]]])
    assert not is_loaded([[b"library_name", b"rapid_v1", b"functions", [[b"name", b"rapid_v1_is_0000000000000000"]]]])
    assert function_name("claim") == "rapid_v1_claim"


def test_every_source_file_is_part_of_the_library() -> None:
    files = [item for item in (resources.files("rapid.dispatch") / "lua").iterdir() if item.name.endswith(".lua")]
    assert len(files) >= 8
    assert all(item.read_text().strip() in library_source() for item in files)
