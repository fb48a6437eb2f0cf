"""Files that are no raws: a pattern says whose they are, a handler takes them."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from lsst.daf.butler import Butler

from rapid.errors import ConfigurationError
from rapid.ingest.files import find_rule, load_rules
from rapid.ingest.tree import FileTree
from tests.ingest.conftest import make_desk

RULES = r"""
rules:
  - pattern: '/(?P<csc>\w+)/(?P<generator>\w+)/(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d)/[^/]+\.ecsv$'
    handler: dataset
    dataset_type: lfa_{csc}_{generator}
    storage_class: AstropyTable
    formatter: lsst.daf.butler.formatters.astropyTable.AstropyTableFormatter
    day_obs: '{year}{month}{day}'
  - pattern: '/AllSky/(?P<day_obs>\d{8})/[^/]+\.jpg$'
    handler: dataset
    dataset_type: allsky
  - pattern: '/Announced/'
    handler: webhook
    url: URL
  - pattern: '\.log$'
    handler: ignore
"""

TABLE = "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: force, datatype: float64}\nforce\n1.5\n2.5\n"


class Hook:
    """A web service that a handler posts to; refuses so often before it takes what comes."""

    def __init__(self) -> None:
        self.said: list[dict] = []
        self.n_refused = 0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.said.append(body)
                self.send_response(503 if len(hook.said) <= hook.n_refused else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/new"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join(10)
        self.server.server_close()


@pytest.fixture
def hook():
    found = Hook()
    yield found
    found.close()


@pytest.fixture
def rules(tmp_path, hook):
    path = tmp_path / "rules.yaml"
    path.write_text(RULES.replace("URL", hook.url))
    return load_rules(path)


def write(folder, name: str, content: bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


async def test_each_kind_of_file_goes_to_its_handler_and_a_restart_hands_on_nothing_twice(
    stage, rules, hook, tmp_path
) -> None:
    place = tmp_path / "lfa"
    hook.n_refused = 1
    table = write(place, "MTM1M3/forces/2026/11/20/forces_1.ecsv", TABLE.encode())
    write(place, "AllSky/20261120/sky_0001.jpg", b"\xff\xd8 a picture")
    write(place, "AllSky/20261120/sky_0002.jpg", b"\xff\xd8 another")
    announced = write(place, "Announced/note.txt", b"hello")
    write(place, "x/notes.log", b"nobody's")
    write(place, "x/unknown.bin", b"nobody's either")
    for n_start in range(2):
        tree = FileTree(str(place), rules, "LSSTCam", sweep_s=0.5, settle_s=0.1)
        desk = make_desk(stage.repo, rules=rules)
        process = await stage.start(f"ingest.{n_start}", desk=desk, sources=(), trees=(tree,))
        wanted = 4 if n_start == 0 else 0

        def all_done(process=process, wanted=wanted) -> bool:
            counts = process.ingester.counts
            return sum(counts.values()) == 5 and counts.get("handled", 0) == wanted

        await stage.wait_until(all_done, "every file with a rule is dealt with")
        await process.end()
        stage.processes.clear()
    assert [one["uri"] for one in hook.said] == [announced, announced]  # refused once, taken once
    assert hook.said[1]["fields"]["name"] == "note.txt"
    with Butler.from_config(str(stage.repo)) as butler:
        found = butler.get(
            "lfa_MTM1M3_forces",
            instrument="LSSTCam",
            day_obs=20261120,
            group="forces_1.ecsv",
            collections="LSSTCam/files/20261120",
        )
        assert list(found["force"]) == [1.5, 2.5]
        refs = butler.query_datasets("allsky", collections="LSSTCam/files/20261120")
        assert sorted(butler.get(ref) for ref in refs) == [b"\xff\xd8 a picture", b"\xff\xd8 another"]
        uri = butler.getURI(butler.query_datasets("lfa_MTM1M3_forces", collections="LSSTCam/files/20261120")[0])
    assert uri.ospath == table


async def test_a_file_whose_day_makes_no_sense_is_set_aside(stage, rules, tmp_path) -> None:
    write(tmp_path / "lfa", "A/b/2026/99/20/forces_1.ecsv", TABLE.encode())
    tree = FileTree(str(tmp_path / "lfa"), rules, "LSSTCam", sweep_s=0.5, settle_s=0.1)
    await stage.start(desk=make_desk(stage.repo, rules=rules), sources=(), trees=(tree,))
    (record,) = await stage.aside(1)
    assert "20269920" in record.reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [{pattern: '(', handler: ignore}]", "rules.0.pattern: Value error, no regular expression"),
        ("rules: [{pattern: x, handler: dataset}]", "needs a dataset_type"),
        ("rules: [{pattern: x, handler: webhook, url: 'file:///etc/passwd'}]", "needs a url"),
        ("rules: [{pattern: x, handler: nobody}]", "no handler 'nobody'"),
        ("rules: [{pattern: x, handler: ignore, colour: red}]", "rules.0.colour"),
        ("rules: [", "no YAML"),
        ("[]", "valid dictionary"),
    ],
    ids=["no expression", "no dataset type", "no url", "unknown handler", "unknown field", "no YAML", "no mapping"],
)
def test_a_mistake_in_the_rules_is_named(tmp_path, text, message) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="ingest_rules") as found:
        load_rules(path)
    assert message in found.value.message


def test_the_first_rule_that_fits_counts(rules) -> None:
    rule, fields = find_rule("s3://lfa/MTM1M3/forces/2026/11/20/a.ecsv", rules, "LSSTCam")
    assert rule.handler == "dataset"
    assert (fields["csc"], fields["day"], fields["name"]) == ("MTM1M3", "20", "a.ecsv")
    assert find_rule("/lfa/other.bin", rules, "LSSTCam") is None
