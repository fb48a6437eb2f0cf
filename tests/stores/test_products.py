"""Products in a directory and in a bucket behave alike."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rapid.errors import ConfigurationError, NotFoundError, StoreError
from rapid.products.directory import DirectoryStore
from rapid.products.s3 import S3Location, S3Store, parse_object_uri, parse_store_url
from rapid.products.store import open_products

KEY = "LSSTCam/20261120/000001/prompt/quicklook/R22_S11.binned.fits"


@pytest.fixture(params=["directory", "bucket", "bucket with a prefix"])
def products(request, tmp_path: Path):
    if request.param == "directory":
        return open_products(str(tmp_path / "products"))
    server = request.getfixturevalue("s3_server")
    url = server.make_bucket(f"products-{os.urandom(6).hex()}")
    if "prefix" in request.param:
        url = url.replace("?", "/some/where?")
    return open_products(url)


def test_a_product_comes_back_as_it_was_put(products):
    data = os.urandom(100_000)
    products.put(KEY, data, content_type="application/fits")
    assert products.get(KEY) == data
    assert products.exists(KEY)


def test_a_product_put_again_replaces_the_first(products):
    products.put(KEY, b"old, and longer", content_type="text/plain")
    products.put(KEY, b"new", content_type="text/plain")
    assert products.get(KEY) == b"new"
    assert list(products.list()) == [KEY]


def test_an_empty_product_is_a_product(products):
    products.put(KEY, b"", content_type="text/plain")
    assert products.get(KEY) == b""


def test_a_missing_product_is_not_found(products):
    assert not products.exists(KEY)
    with pytest.raises(NotFoundError):
        products.get(KEY)
    products.delete(KEY)


def test_a_deleted_product_is_gone(products):
    products.put(KEY, b"x", content_type="text/plain")
    products.delete(KEY)
    assert not products.exists(KEY)
    assert list(products.list()) == []


def test_products_are_listed_by_prefix_in_the_order_of_their_keys(products):
    keys = ["a/b.json", "a/b/c.json", "a/b-x.json", "a/bc/d.json", "b/a.json"]
    for key in keys:
        products.put(key, b"x", content_type="application/json")
    assert list(products.list()) == sorted(keys)
    assert list(products.list("a/b")) == sorted(keys)[:4]
    assert list(products.list("a/b/")) == ["a/b/c.json"]
    assert list(products.list("c/")) == []
    assert list(products.list("a/b.json")) == ["a/b.json"]


@pytest.mark.parametrize(
    "key",
    ["../x", "/etc/passwd", "a/../../x", "a//b", "a/.hidden", "", "a\\b", "a\nb", "a/", ".", "é", "a" * 300],
    ids=repr,
)
def test_a_key_that_could_lead_elsewhere_is_refused(products, key):
    with pytest.raises(ValueError, match="not a product key"):
        products.put(key, b"x", content_type="text/plain")
    with pytest.raises(NotFoundError):
        products.get(key)
    assert not products.exists(key)


def test_a_folder_of_products_is_no_product(products):
    products.put("a/b/c.json", b"x", content_type="application/json")
    assert not products.exists("a/b")
    with pytest.raises(NotFoundError):
        products.get("a/b")


def test_the_url_leads_to_the_product(products):
    products.put(KEY, b"x", content_type="text/plain")
    url = products.url(KEY)
    assert url.endswith(KEY)
    if url.startswith("file://"):
        assert Path(url.removeprefix("file://")).read_bytes() == b"x"
    else:
        place = parse_object_uri(url)
        folder, _, name = place.path.rpartition("/")
        assert S3Store(S3Location(place.bucket, folder, place.endpoint_url)).get(name) == b"x"


def test_a_reader_sees_an_old_or_a_new_product_never_a_part(products):
    sizes = (200_000, 300_000)
    products.put(KEY, b"0" * sizes[0], content_type="text/plain")
    stop = threading.Event()
    seen = set()

    def read():
        while not stop.is_set():
            data = products.get(KEY)
            seen.add((len(data), len(set(data))))

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for round_ in range(30):
            products.put(KEY, bytes([48 + round_ % 10]) * sizes[round_ % 2], content_type="text/plain")
        stop.set()
        for reader in readers:
            reader.result(60)
    assert seen <= {(size, 1) for size in sizes}


def test_a_directory_is_clean_after_a_write_that_failed(tmp_path, monkeypatch):
    store = DirectoryStore(tmp_path, durable=True)
    store.put("a/x.json", b"old", content_type="application/json")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        store.put("a/x.json", b"new", content_type="application/json")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.json"]
    assert store.get("a/x.json") == b"old"


def test_products_can_be_read_by_others_as_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        DirectoryStore(tmp_path).put("x.json", b"x", content_type="application/json")
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o640


def test_a_file_in_the_place_of_a_folder_is_a_store_error(tmp_path):
    store = DirectoryStore(tmp_path)
    store.put("a", b"x", content_type="text/plain")
    with pytest.raises(StoreError):
        store.put("a/b", b"x", content_type="text/plain")
    with pytest.raises(NotFoundError):
        store.get("a/b")


def test_a_bucket_that_is_missing_or_a_server_that_is_away_is_a_store_error(s3_server):
    missing = open_products(f"s3://no-such-bucket?endpoint_url={s3_server.endpoint_url}")
    with pytest.raises(StoreError):
        missing.put(KEY, b"x", content_type="text/plain")
    away = open_products("s3://b?endpoint_url=http://127.0.0.1:1")
    for action in (
        lambda: away.put(KEY, b"x", content_type="text/plain"),
        lambda: away.get(KEY),
        lambda: away.exists(KEY),
    ):
        with pytest.raises(StoreError):
            action()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://b", S3Location("b")),
        ("s3://b/p/q/", S3Location("b", "p/q")),
        ("s3://b/p?endpoint_url=http://h:9", S3Location("b", "p", "http://h:9")),
        ("s3+https://h:9/b/p", S3Location("b", "p", "https://h:9")),
        ("s3://b?region=eu&profile=x", S3Location("b", region="eu", profile="x")),
    ],
)
def test_the_urls_of_buckets(url, place):
    assert parse_store_url(url) == place


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3+http://host",
        "s3://b?endpoint=http://h",
        "s3://b?endpoint_url=h:9",
        "s3://KEY:hush@b/p",
        "ftp://host/x",
        "file://elsewhere/x",
    ],
)
def test_a_url_that_is_no_store_is_refused_without_repeating_its_secret(url):
    with pytest.raises(ConfigurationError) as caught:
        open_products(url)
    assert "hush" not in str(caught.value)


def test_an_object_uri_keeps_its_key_as_it_is():
    assert parse_object_uri("s3+http://h:9/b/a b%20c?d#e").path == "a b%20c?d#e"
