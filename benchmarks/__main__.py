"""`python -m benchmarks`: run them, show a table, keep the numbers."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.material import Material
from benchmarks.measure import Benchmark, ContenderError, Figure, Round, medians, play
from benchmarks.suite import BENCHMARKS

PACKAGES = ("resnetd", "torch", "timm", "onnxruntime", "pillow", "numpy")


def main(
    names: Annotated[Optional[list[str]], typer.Argument(metavar="[NAME]...", help=", ".join(BENCHMARKS))] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs of each contender, of which medians.")] = 5,
    images: Annotated[
        Optional[Path],
        typer.Option("--images", exists=True, file_okay=False, help="Use the images of this folder."),
    ] = None,
    skip_int8: Annotated[bool, typer.Option("--skip-int8", help="Leave out the int8 models.")] = False,
    output: Annotated[Optional[Path], typer.Option("--json", help="Write the numbers here too.")] = None,
) -> None:
    """Measure the figures of the README and `docs/speed.md` on this machine. All take about half an hour."""
    if unknown := set(names or ()) - set(BENCHMARKS):
        raise typer.BadParameter(f"no such benchmark: {', '.join(sorted(unknown))}", param_hint="NAME")
    if output and not output.parent.is_dir():
        raise typer.BadParameter(f"{output.parent} is not a folder", param_hint="--json")
    report: dict[str, Any] = {"machine": _machine(), "runs": runs, "benchmarks": {}}
    table = _open_table()
    with tempfile.TemporaryDirectory(prefix="resnetd-benchmarks-") as folder:
        material = Material(Path(folder), images)
        for name in names or BENCHMARKS:
            _tell(name)
            try:
                benchmark = BENCHMARKS[name](material, not skip_int8)
                rounds = play(benchmark, runs, material.env, _tell)
            except ContenderError as error:
                _tell(f"{name} failed: {error}")
                raise typer.Exit(1) from error
            report["benchmarks"][name] = _summary(benchmark, rounds)
            for figure in benchmark.figures:
                table.add_row(name, *_cells(figure, rounds))
            if output:
                output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    Console().print(table)


def _summary(benchmark: Benchmark, rounds: Sequence[Round]) -> dict[str, Any]:
    return {
        "contenders": {
            name: {
                "seconds": medians([round_[name].seconds for round_ in rounds]),
                "peak_mb": medians([round_[name].peak_mb for round_ in rounds]),
            }
            for name in benchmark.contenders
        },
        "figures": [
            {
                "title": figure.title,
                "unit": figure.unit,
                **medians([figure.value(round_) for round_ in rounds]),
                "target": figure.target,
                "at_most": figure.at_most,
            }
            for figure in benchmark.figures
        ],
    }


def _cells(figure: Figure, rounds: Sequence[Round]) -> tuple[str, ...]:
    values = medians([figure.value(round_) for round_ in rounds])
    met = figure.met_by(values["median"])
    return (
        figure.title,
        _number(values["median"], figure.unit),
        f"{_number(values['least'], figure.unit)} to {_number(values['greatest'], figure.unit)}",
        f"{'at most' if figure.at_most else 'at least'} {figure.target:g} {figure.unit}",
        "[green]yes[/]" if met else "[red]no[/]",
    )


def _number(value: float, unit: str) -> str:
    return f"{value:.2f} {unit}" if unit == "x" else f"{value:.0f} {unit}"


def _open_table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("benchmark", no_wrap=True)
    table.add_column("figure")
    for heading in ("median", "range", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("met")
    return table


def _machine() -> dict[str, Any]:
    versions = {package: metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version(), "cpus": os.cpu_count(), "system": platform.platform(), **versions}


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
