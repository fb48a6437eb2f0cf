"""The docs say what the code does."""

from pathlib import Path

import numpy as np
import yaml

from payloads.plugin import Frame
from rapid.dispatch import keys
from rapid.pipeline.store import load_book
from rapid.worker.registry import check_book

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return [part.split("```")[0] for part in (DOCS / page).read_text().split(f"```{language}\n")[1:]]


def test_the_table_of_keys_is_current():
    assert keys.render_keys() in (DOCS / "redis.md").read_text()


def test_the_payload_of_the_guide_runs_as_it_stands():
    namespace: dict[str, object] = {}
    exec(blocks("payloads.md", "python")[0], namespace)  # noqa: S102 - the guide's own example
    payload_class = namespace["SkyBrightness"]
    payload = payload_class(payload_class.Config(percentile=25))
    frame = Frame(raw=None, info=None, header={}, camera=None, detector=None)
    frame.image = np.arange(100, dtype=np.float32).reshape(10, 10)
    payload.run(frame)
    assert frame.metrics == {"sky_level": 24.75}


def test_the_pipeline_of_the_guide_is_valid(tmp_path):
    text = blocks("payloads.md", "yaml")[0]
    assert yaml.safe_load(text)
    (tmp_path / "sky.yaml").write_text(text)
    assert load_book([tmp_path]).names == ("sky",)


def test_the_pipeline_of_pipeline_tasks_is_valid_and_its_payload_agrees(tmp_path):
    (tmp_path / "siblings.yaml").write_text(blocks("payloads.md", "yaml")[1])
    book = load_book([tmp_path])
    assert book.names == ("siblings",)
    check_book(book)


def test_the_afterburner_of_the_guide_is_valid_and_its_payload_agrees(tmp_path):
    (tmp_path / "site.yaml").write_text(blocks("payloads.md", "yaml")[2])
    book = load_book([tmp_path])
    after = book.get("quicklook_after")
    assert after is not None
    assert [step.payload for step in after.steps] == ["isr", "encircled_energy"]
    check_book(book)


def test_links_between_pages_lead_somewhere():
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        for part in page.read_text().split("](")[1:]:
            target = part.split(")")[0].split("#")[0]
            if target and "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
