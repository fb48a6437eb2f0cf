"""A program that is asked by a line and answers by one: nobody gets another's answer."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rapid.line_process import LineProcess, NoAnswerError

PROGRAM = """
import os, threading
from rapid.line_process import answer_lines

def answer(line):
    word = line.strip()
    if word == "die":
        os._exit(3)
    if word == "hang":
        threading.Event().wait()
    if word == "long":
        return "x" * (2 << 20)
    print("a library says something")
    return f"{word} {os.getpid()} {os.environ['OMP_NUM_THREADS']} {os.nice(0)}"

answer_lines(answer, niceness=3)
"""


@pytest.fixture
async def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LineProcess]:
    (tmp_path / "echoing_program.py").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    process = LineProcess("echoing_program", answer_s=60.0)
    yield process
    await process.end()


async def ask(process: LineProcess, word: str) -> list[str]:
    async with asyncio.timeout(90):
        return (await process.ask(word)).decode().split()


async def test_one_process_answers_question_after_question(program: LineProcess) -> None:
    first, second = await ask(program, "one"), await ask(program, "two")

    assert [first[0], second[0]] == ["one", "two"], "what the program prints is not taken for an answer"
    assert first[1] == second[1], "it goes on"
    assert first[2:] == ["1", "3"], "one thread, and nice"


@pytest.mark.parametrize(
    ("word", "says"), [("die", "ended with status 3"), ("long", "ValueError")], ids=["died", "said too much"]
)
async def test_a_process_without_an_answer_is_replaced(program: LineProcess, word: str, says: str) -> None:
    before = await ask(program, "before")

    with pytest.raises(NoAnswerError, match=says):
        await ask(program, word)

    after = await ask(program, "after")
    assert after[0] == "after"
    assert after[1] != before[1]


async def test_who_no_longer_waits_leaves_no_answer_for_the_next(program: LineProcess) -> None:
    await ask(program, "ready")
    hanging = asyncio.create_task(program.ask("hang"))
    await asyncio.wait({hanging}, timeout=0.2)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging

    assert (await ask(program, "next"))[0] == "next"


async def test_an_answer_has_its_time(program: LineProcess) -> None:
    slow = LineProcess("echoing_program", answer_s=0.05)

    with pytest.raises(NoAnswerError, match=r"longer than 0\.05 s"):
        await ask(slow, "hang")
    await slow.end()


async def test_a_module_that_is_not_there_is_no_answer() -> None:
    process = LineProcess("no_such_module_of_anybody", answer_s=60.0)

    with pytest.raises(NoAnswerError, match="ended with status 1"):
        await ask(process, "anything")
