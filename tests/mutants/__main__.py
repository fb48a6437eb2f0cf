"""`make mutants`: builds broken on purpose, each of which a night must notice. Example: make mutants ARGS="--only fencing"

Each mutant is a copy of the source in a folder of its own with one small change, run against the nights one after the
other until one catches it: it breaks an invariant, stalls, or its results are not those of the night. First the source as it
is plays every night that is asked: a night that is not well without a mutant proves nothing.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from replay.nightbook import story_names

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("mutants.yaml")
SOURCES = ("rapid", "payloads", "replay", "pyproject.toml")
NIGHT_TIMEOUT_S = 420.0
DOES_NOT_RUN = "does not run"

JUDGE = """
import sys
from pathlib import Path
from replay.check import Kind, check, load_tolerances
from replay.nightbook import NIGHTS, TOLERANCES
from replay.recording import read_recording
from replay.system import replay_night
name, folder, stall_s = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
night = read_recording(NIGHTS / name)
found = replay_night(night, folder, stall_s=stall_s)
report = check(night, found, load_tolerances(NIGHTS / name / TOLERANCES))
# What was promised says more than what came of it; that the night stood says least.
first = sorted(report.findings, key=lambda one: (one.where == "played", one.kind is not Kind.INVARIANT))
for finding in first[:1]:
    print(f"{finding.kind.value}: {finding.where}: {finding.message}"[:200])
sys.exit(3 if report.findings else 0)
"""


class Change(BaseModel):
    """A small change of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    find: str = Field(min_length=1)
    replace: str

    def apply(self, tree: Path) -> None:
        """Change the file in a copy of the source."""
        path = tree / self.file
        path.write_text(path.read_text(encoding="utf-8").replace(self.find, self.replace), encoding="utf-8")


class Mutant(Change):
    """One broken build."""

    name: str
    why: str
    also: tuple[Change, ...] = Field(default=(), description="What else must go, where two doors hold one promise.")
    nights: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant in a night."""

    is_caught: bool
    why: str
    seconds: float


def read_mutants() -> list[Mutant]:
    """Return the list; each must change its file in exactly one place."""
    mutants = TypeAdapter(list[Mutant]).validate_python(yaml.safe_load(LIST.read_text(encoding="utf-8")))
    for mutant in mutants:
        for change in (mutant, *mutant.also):
            n = (ROOT / change.file).read_text(encoding="utf-8").count(change.find)
            if n != 1:
                raise SystemExit(f"{mutant.name}: {change.file} has what is to be changed {n} times")
    return mutants


def build(tree: Path, mutant: Mutant | None) -> None:
    """Copy the source, and break it."""
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            # Compiled kernels come along: they are those of their file's time of change, and cost a minute each time.
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("*.pyc"))
        else:
            tree.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tree / name)
    if mutant is not None:
        for change in (mutant, *mutant.also):
            change.apply(tree)


def judge(tree: Path, night: str, stall_s: float) -> Verdict:
    """Play a night with a build."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rapid-mutant-") as folder:
        try:
            ended = subprocess.run(
                [sys.executable, "-c", JUDGE, night, str(Path(folder) / "system"), str(stall_s)],
                cwd=tree,
                capture_output=True,
                text=True,
                timeout=NIGHT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Verdict(True, f"not over after {NIGHT_TIMEOUT_S:.0f} s", time.monotonic() - begin)
    seconds = time.monotonic() - begin
    if ended.returncode in {0, 3}:
        return Verdict(
            ended.returncode == 3, ended.stdout.strip().splitlines()[-1] if ended.stdout.strip() else "", seconds
        )
    said = next((line for line in reversed(ended.stderr.splitlines()) if line[:1].isalpha()), "no word")
    return Verdict(True, f"{DOES_NOT_RUN}: {said}"[:200], seconds)


def judge_surely(tree: Path, night: str, stall_s: float) -> Verdict:
    """Play a night; again if the system did not even start, which a busy machine does to builds that are well."""
    verdict = judge(tree, night, stall_s)
    return judge(tree, night, stall_s) if verdict.why.startswith(DOES_NOT_RUN) else verdict


def main() -> int:
    """Run the mutants; 1 if one survives."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", default="", help="mutants whose name holds this")
    parser.add_argument(
        "--stall", type=float, default=45.0, help="a night in which nothing moves for so long fails [s]"
    )
    parser.add_argument(
        "--no-control", action="store_true", help="do not play the nights with the source as it is first"
    )
    parser.add_argument("--thorough", action="store_true", help="all nights, not only those that each mutant names")
    arguments = parser.parse_args()
    mutants = [mutant for mutant in read_mutants() if arguments.only in mutant.name]
    if not mutants:
        parser.error(f"--only {arguments.only}: no mutant is called so")
    rows, survived = [], []
    with tempfile.TemporaryDirectory(prefix="rapid-mutants-") as scratch:
        trees = Path(scratch)
        if not arguments.no_control:
            build(trees / "control", None)
            for night in sorted({night for mutant in mutants for night in mutant.nights}):
                verdict = judge_surely(trees / "control", night, 180.0)
                print(f"{'as it is':44} {night:16} {verdict.why or 'well'} ({verdict.seconds:.0f} s)", flush=True)
                if verdict.is_caught:
                    print(f"the night {night} is not well without any mutant: nothing is proved", file=sys.stderr)
                    return 2
        for place, mutant in enumerate(mutants):
            tree = trees / str(place)
            build(tree, mutant)
            others = [night for night in story_names() if night not in mutant.nights] if arguments.thorough else []
            for night in [*mutant.nights, *others]:
                verdict = judge_surely(tree, night, arguments.stall)
                if verdict.is_caught:
                    rows.append((mutant.name, night, verdict))
                    print(f"{mutant.name:44} {night:16} {verdict.why} ({verdict.seconds:.0f} s)", flush=True)
                    break
            else:
                survived.append(mutant.name)
                print(f"{mutant.name:44} SURVIVED", flush=True)
            shutil.rmtree(tree)
    print("\n| mutant | caught by | how |\n|---|---|---|")
    for name, night, verdict in rows:
        print(f"| {name} | {night} | {verdict.why} |")
    print(f"\n{len(rows)} of {len(mutants)} caught" + (f"; survived: {', '.join(survived)}" if survived else ""))
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
