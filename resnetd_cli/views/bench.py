"""How the results of `bench` are shown: a table for people, or any record format."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from resnetd_cli.pipeline.sinks.base import Listing, write_listing
from resnetd_cli.system.cpus import cpu_limit
from resnetd_cli.system.escaping import printable
from resnetd_cli.views.listing import write_rows

if TYPE_CHECKING:
    from resnetd_cli.evaluation.bench import BenchReport, Ranking, Trial

_TRIAL_COLUMNS = {
    "images_per_second": "images/s",
    "workers": "workers",
    "threads": "threads",
    "batch_size": "batch",
    "images": "images",
    "runs": "runs",
}
_STAGE_COLUMNS = {"stage": "stage", "ms": "ms per image", "share": "share", "note": ""}
_RANKING_COLUMNS = {
    "engine": "engine",
    "precision": "precision",
    "images_per_second": "images/s",
    "times": "times as fast",
    "workers": "workers",
    "threads": "threads",
    "batch_size": "batch",
}
_NOTICEABLE = 1.05
"""A smaller gain is within the noise: two runs of the same settings differ as much."""


def write_report(report: BenchReport, stream: IO[str], format_name: str, *, header: bool = True) -> None:
    """Write the measurements: json and jsonl hold all of them, tsv and csv a row for each trial."""
    rows = [trial.record() for trial in report.trials]
    cells = [list(row.values()) for row in rows]
    listing = Listing(report.record(), list(rows[0]), cells, lambda stream: _draw(report, stream))
    write_listing(listing, stream, format_name, header=header)


def write_ranking(ranking: Ranking, stream: IO[str], format_name: str, *, header: bool = True) -> None:
    """Write the measurements of several engines and precisions, the fastest first."""
    rows = [
        {"engine": report.engine, "precision": report.precision, **report.best.record()}
        for report in ranking.reports
    ]
    cells = [list(row.values()) for row in rows]
    listing = Listing(ranking.record(), list(rows[0]), cells, lambda stream: _draw_ranking(ranking, stream))
    write_listing(listing, stream, format_name, header=header)


def _draw_ranking(ranking: Ranking, stream: IO[str]) -> None:
    fastest = ranking.reports[0]
    stream.write(f"{printable(fastest.model)}\n")
    rows = [
        {
            "engine": report.engine,
            "precision": report.precision,
            **_trial_row(report.best),
            "times": f"{report.best.images_per_second / ranking.reports[-1].best.images_per_second:.2f}",
        }
        for report in ranking.reports
    ]
    write_rows(rows, stream, "table", columns=_RANKING_COLUMNS)
    for (engine, precision), error in ranking.left_out.items():
        stream.write(f"{precision} on {engine} was left out: {printable(error.message)}\n")
    stream.write(f"fastest  {_as_options(fastest)}\n")


def _as_options(report: BenchReport) -> str:
    """Return the options with which a command runs as fast."""
    settings = report.best.settings
    threads = "" if settings.threads is None else f" --threads {settings.threads}"
    return (
        f"--engine {report.engine} --precision {report.precision} --workers {settings.workers}{threads} "
        f"--batch-size {settings.batch_size}"
    )


def _draw(report: BenchReport, stream: IO[str]) -> None:
    cpus = "1 processor" if report.cpus == 1 else f"{report.cpus} processors"
    limit = cpu_limit()
    about = f"{report.model} on {report.engine} in {report.precision} ({report.why}), {cpus}"
    about += f" ({limit})" if limit else ""
    stream.write(f"{printable(about)}\n")
    write_rows(_stage_rows(report), stream, "table", columns=_STAGE_COLUMNS)
    write_rows([_trial_row(trial) for trial in report.trials], stream, "table", columns=_TRIAL_COLUMNS)
    stream.write(f"default  {_in_words(report.default)}\n")
    if report.gain < _NOTICEABLE:
        stream.write("best     the default; nothing that was tried is clearly faster\n")
    else:
        stream.write(f"best     {_in_words(report.best)}: {report.gain:.2f} times as fast\n")


def _stage_rows(report: BenchReport) -> list[dict[str, object]]:
    total = sum(report.stages.values())
    return [
        {
            "stage": stage,
            "ms": f"{1000 * seconds:.2f}",
            "share": f"{seconds / total:.0%}",
            "note": "the bottleneck" if stage == report.bottleneck else "",
        }
        for stage, seconds in report.stages.items()
    ]


def _trial_row(trial: Trial) -> dict[str, object]:
    record = trial.record()
    return {**record, "threads": record["threads"] or "all", "images_per_second": f"{trial.images_per_second:.1f}"}


def _in_words(trial: Trial) -> str:
    settings = trial.settings
    threads = "all threads" if settings.threads is None else f"threads {settings.threads}"
    return (
        f"{trial.images_per_second:.1f} images/s with workers {settings.workers}, {threads}, "
        f"batch {settings.batch_size} (median of {trial.runs}, {trial.images} images)"
    )
