"""Every command, option and setting that a page names is there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from rapid.cli import app
from rapid.display.settings import DisplaySettings
from rapid.wiring.settings import RoleSettings
from replay.cli import register

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ +)*(?:\S*/)?rapid +(.*)")
ENDS = {"|", "&&", "||", ">", "<", "&", ";"}


@pytest.fixture(scope="module")
def root() -> Any:
    """Return `rapid` with everything that `rapid.cli.main` gives it."""
    names = {group.name for group in app.registered_groups}
    if "replay" not in names:
        register(app)
    return typer.main.get_command(app)


def commands_in(text: str) -> Iterator[str]:
    """Yield what follows ``rapid`` in blocks of shell lines and in code between back ticks."""
    blocks = re.findall(r"```(?:sh|bash|console)?\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [
        code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    ]
    for line in lines:
        # Two spaces begin the words that explain a line, as a # does.
        for part in re.split(r"\s{2,}|\s#", line.strip().removeprefix("$ "))[0].split("; "):
            found = COMMAND.fullmatch(part.strip())
            if found is not None and not re.match(r"\w+\|", found[1]):  # rapid head|worker: a list, not a line
                yield found[1]


def faults_of(line: str, root: Any) -> Iterator[str]:
    """Yield the commands and options of a line that do not exist."""
    command, takes_value, is_value = root, {"--help": False}, False
    for word in shlex.split(line):
        if word in ENDS:
            return
        if is_value:
            is_value = False
        elif re.match(r"--?[a-z]", word):
            name = re.split(r"[=|\]]", word)[0]
            if name not in takes_value:
                yield f"no option {name}"
            is_value = "=" not in word and takes_value.get(name, False)
        elif hasattr(command, "commands"):
            if word not in command.commands:
                yield f"no command {word}"
                return
            command = command.commands[word]
            for one in command.params:
                takes_value |= dict.fromkeys((*one.opts, *one.secondary_opts), not getattr(one, "is_flag", False))


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_the_commands_of_a_page_exist_with_their_options(page: Path, root: Any) -> None:
    lines = list(commands_in(page.read_text(encoding="utf-8")))
    assert [f"rapid {line}: {fault}" for line in lines for fault in faults_of(line, root)] == []


def test_the_pages_are_read_as_a_person_reads_them(root: Any) -> None:
    assert sum(len(list(commands_in(page.read_text(encoding="utf-8")))) for page in PAGES) > 150
    text = (
        "```sh\n.venv/bin/rapid up --ravs /data   starts\n```\n`rapid exclude exposure 1 --reason x; rapid calib undo`"
    )
    assert [(line, list(faults_of(line, root))) for line in commands_in(text)] == [
        ("up --ravs /data", ["no option --ravs"]),
        ("exclude exposure 1 --reason x", []),
        ("calib undo", ["no command undo"]),
    ]
    assert list(faults_of("upp --camera X", root)) == ["no command upp"]


def test_the_settings_that_pages_name_exist() -> None:
    known = {f"RAPID_{name.upper()}" for model in (RoleSettings, DisplaySettings) for name in model.model_fields}
    for source in (
        *(ROOT / "rapid").rglob("*.py"),
        *(ROOT / "replay").rglob("*.py"),
        *(ROOT / "tests/support").glob("*.py"),
    ):
        known |= set(re.findall(r"\bRAPID_[A-Z_]*[A-Z]\b", source.read_text(encoding="utf-8")))
    unknown = {
        f"{page.name}: {name}"
        for page in PAGES
        for name in re.findall(r"\bRAPID_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8"))
        if name not in known and f"{name}_FILE" not in known and name.removesuffix("_FILE") not in known
    }
    assert unknown == set()
