"""Timing whole processes, taken in turn, and what is concluded from them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the system counts a process's memory."""


@dataclass(frozen=True)
class Run:
    """One process, from start to exit.

    Attributes:
        seconds: how long it took.
        peak_mb: the most memory it held at once (resident set, 10^6 bytes); that of its children is not in it.
        output: what it printed.
    """

    seconds: float
    peak_mb: float
    output: str


Round = Mapping[str, Run]
"""A run of each contender, by name, one after the other."""


@dataclass(frozen=True)
class Figure:
    """A number that each round measures, and its target.

    Attributes:
        title: what it says.
        value: computes it from a round.
        target: the bound.
        at_most: the bound is an upper one.
        unit: `x` for a ratio, `%` or `MB`.
    """

    title: str
    value: Callable[[Round], float]
    target: float
    at_most: bool = False
    unit: str = "x"

    def met_by(self, value: float) -> bool:
        """Tell whether a value is within the bound."""
        return value <= self.target if self.at_most else value >= self.target


@dataclass(frozen=True)
class Benchmark:
    """Contenders, and the figures that follow from timing them.

    Attributes:
        contenders: command lines, by name, in the order of their turns.
        figures: what is computed from each round; the median of the rounds is reported.
        rounds: how many rounds at most; None for as many as the user wants.
    """

    contenders: Mapping[str, Sequence[str | Path]]
    figures: Sequence[Figure]
    rounds: int | None = None


class ContenderError(Exception):
    """A contender failed. The message is what it said."""


def play(benchmark: Benchmark, rounds: int, env: Mapping[str, str], tell: Callable[[str], None]) -> list[Round]:
    """Run the contenders in turn, so that whatever else goes on in the machine hits all of them alike.

    Args:
        benchmark: what to run.
        rounds: how often.
        env: the environment of the processes.
        tell: is told, in a line, of each run.

    Raises:
        ContenderError: one of them ended with an error.
    """

    def one_round(number: int) -> Iterator[tuple[str, Run]]:
        for name, command in benchmark.contenders.items():
            run = run_process(command, env)
            tell(f"  {number}/{rounds}  {name}: {run.seconds:.2f} s, {run.peak_mb:.0f} MB")
            yield name, run

    rounds = min(rounds, benchmark.rounds or rounds)
    return [dict(one_round(number)) for number in range(1, rounds + 1)]


def run_process(command: Sequence[str | Path], env: Mapping[str, str]) -> Run:
    """Run a command to its end.

    Raises:
        ContenderError: it ended with an error.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)  # as `wait`, and tells what this one child used
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            raise ContenderError(f"{' '.join(map(str, command))}\n{errors.read().strip()}")
        return Run(seconds, usage.ru_maxrss * _RSS_UNIT / 1e6, output.read())


def speedup(of: str, over: str) -> Callable[[Round], float]:
    """Return what tells how many times quicker a contender is than another, whole process by whole process."""
    return lambda round_: round_[over].seconds / round_[of].seconds


def sustained(name: str, images: tuple[int, int]) -> Callable[[Round], float]:
    """Return what tells a contender's images a second once it is under way.

    It has run twice, as `NAME, N images`: what the longer run took more is the time of the images that it had
    more, without start and end of the process, which are in both.
    """
    few, many = images

    def value(round_: Round) -> float:
        more = round_[f"{name}, {many} images"].seconds - round_[f"{name}, {few} images"].seconds
        return (many - few) / more

    return value


def medians(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the least and the greatest of values."""
    return {"median": median(values), "least": min(values), "greatest": max(values)}
