"""How the reports of `evaluate` are shown: tables for people, or any record format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from typing import IO, TYPE_CHECKING

from resnetd_cli.class_names.shipped import folded
from resnetd_cli.evaluation.records import ClassRow
from resnetd_cli.pipeline.sinks.base import Listing, write_listing
from resnetd_cli.system.escaping import printable
from resnetd_cli.system.wording import counted
from resnetd_cli.views.listing import draw_facts

if TYPE_CHECKING:
    from resnetd_cli.evaluation.comparison import Comparison
    from resnetd_cli.evaluation.images import LabelledImages
    from resnetd_cli.evaluation.records import EvaluationReport, ImageCounts

COLUMNS = ("model", *(field.name for field in fields(ClassRow)), "left_out")
_FEW = 10
"""The most classes that are shown in full, and the most rows of any other table."""
_UNLIKELY = 0.05
_MARGIN, _PROSE = 3, 20
"""Space between the columns of a table, and the width from which a text may wrap, in characters."""
_LETTERS = ("A", "B")


def write_reports(
    images: LabelledImages,
    reports: Sequence[EvaluationReport],
    comparison: Comparison | None,
    stream: IO[str],
    format_name: str,
    *,
    header: bool = True,
    escape_formulas: bool = False,
) -> None:
    """Write one model's report, or two models' side by side.

    json and jsonl hold all of it, tsv and csv a row for each class of each model, a table the main figures.
    """

    def draw(stream: IO[str]) -> None:
        if left_out := _left_out(images):
            stream.write(f"left out: {left_out}\n")
        if comparison:
            _write_pair(reports, comparison, stream)
        else:
            _write_one(reports[0], stream)

    record = {
        "data": images.location,
        "split": images.split,
        "left_out": {"trained_on": images.trained_on, "unknown_class": images.unknown},
        "models": [report.record() for report in reports],
        "comparison": comparison.record() if comparison else None,
    }
    left_out = images.trained_on + images.unknown
    rows = [(report.model.name, *astuple(row), left_out) for report in reports for row in report.classes]
    listing = Listing(record, COLUMNS, rows, draw)
    write_listing(listing, stream, format_name, header=header, escape_formulas=escape_formulas)


def _left_out(images: LabelledImages) -> str:
    """Return which images were left out, in a line; empty if none."""
    counts = {"that a model was trained on": images.trained_on, "of classes that a model lacks": images.unknown}
    return ", ".join(f"{counted(count, 'image', ',')} {which}" for which, count in counts.items() if count)


def in_short(report: EvaluationReport) -> str:
    """Return the accuracy, in a line."""
    figures = _figures(report)
    shown = [f"{name} {figures[name]}" for name in ("top-1", "top-1 by real labels") if figures[name]]
    return f"{report.model.name}: {', '.join(shown)}; images {figures['images']}"


def image_notes(counts: ImageCounts) -> list[str]:
    """Return what users should know of the images that were evaluated, a line each."""
    notes = []
    if counts.turned:
        verb = "was" if counts.turned == 1 else "were"
        notes.append(
            f"{counted(counts.turned, 'image', ',')} {verb} turned upright by EXIF orientation, "
            "which timm ignores: ignoring EXIF would leave them as stored"
        )
    if counts.repeated:
        copies = (
            "is a byte-for-byte copy of another, and counts as well"
            if counts.repeated == 1
            else "are byte-for-byte copies of others, and count as well"
        )
        notes.append(f"{counted(counts.repeated, 'image', ',')} {copies}")
    return notes


def _write_one(report: EvaluationReport, stream: IO[str]) -> None:
    stream.write(f"{_title(report)}\n")
    draw_facts({name: text for name, text in _figures(report).items() if text}, stream)
    if report.classes:
        _write_classes(report, stream)
        _write_confusion(report, stream)
    rows = [
        (f"{row.threshold:g}", f"{row.images:,}", _percent(row.coverage), _percent(row.accuracy))
        for row in report.coverage
    ]
    stream.write("with a minimum probability P\n")
    _write_table(stream, {"P": True, "images": True, "answered": True, "right of these": True}, rows)
    if report.mistakes:
        stream.write("the most confident mistakes\n")
        mistakes = [
            (
                _percent(item.probability),
                report.model.titles[item.predicted_index],
                report.model.titles[item.actual_index],
                item.image,
            )
            for item in report.mistakes
        ]
        _write_table(stream, {"probability": True, "taken for": False, "is": False, "image": False}, mistakes)


def _write_pair(reports: Sequence[EvaluationReport], comparison: Comparison, stream: IO[str]) -> None:
    for letter, report in zip(_LETTERS, reports, strict=True):
        stream.write(f"{letter}: {_title(report)}\n")
    headings = {"": False, **dict.fromkeys(_LETTERS, True)}
    first, second = map(_figures, reports)
    figures = [(name, first[name], second[name]) for name in first if first[name] or second[name]]
    _write_table(stream, headings, figures)
    stream.write("accuracy of the answered share, with a minimum probability P\n")
    rows = [
        (
            f"{one.threshold:g}",
            *(f"{_percent(each.accuracy)} of {_percent(each.coverage)}" for each in (one, other)),
        )
        for one, other in zip(*(report.coverage for report in reports), strict=True)
    ]
    _write_table(stream, headings, rows)
    _write_differences(reports, stream)
    stream.write(f"{comparison_in_words(comparison)}\n")


def _title(report: EvaluationReport) -> str:
    return printable(f"{report.model.name} on {report.model.engine} in {report.model.precision}")


def _figures(report: EvaluationReport) -> dict[str, str]:
    """Return the figures of a report as people read them; empty texts for those that it lacks."""
    counts, scores, real, fit = report.counts, report.scores, report.real, report.fit
    low, high = scores.top1_interval or (0.0, 0.0)
    return {
        "images": f"{counts.answered:,}" + (f", {counts.failed:,} more failed" if counts.failed else ""),
        "turned by EXIF": f"{counts.turned:,}" if counts.turned else "",
        "copies of others": f"{counts.repeated:,}" if counts.repeated else "",
        "of these trained on": f"{counts.trained_on:,}" if counts.trained_on else "",
        "top-1": "" if scores.top1 is None else f"{_percent(scores.top1)} ({100 * low:.1f} to {100 * high:.1f})",
        "top-5": _percent(scores.top5),
        "top-1 by real labels": f"{_percent(real.top1)} of {real.images:,} images" if real and real.images else "",
        "macro precision": _percent(scores.macro_precision),
        "macro recall": _percent(scores.macro_recall),
        "macro F1": _percent(scores.macro_f1),
        "loss": _loss(scores.loss) + (f", {_loss(fit.loss_before)} before" if fit else ""),
        "calibration error": _percent(scores.ece) + (f", {_percent(fit.ece_before)} before" if fit else ""),
        "temperature": "" if report.model.temperature == 1 else f"{report.model.temperature:.4g}",
    }


def _write_classes(report: EvaluationReport, stream: IO[str]) -> None:
    """Print the metrics of the classes; of many, those of the worst."""
    rows = [row for row in report.classes if row.support]
    if len(rows) > _FEW:
        stream.write(f"the {_FEW} worst of {len(rows):,} classes\n")
        rows = sorted(rows, key=lambda row: row.f1)[:_FEW]
    headings = {"class": False, "images": True, "precision": True, "recall": True, "F1": True}
    _write_table(
        stream,
        headings,
        [
            (
                report.model.titles[row.index],
                f"{row.support:,}",
                *map(_percent, (row.precision, row.recall, row.f1)),
            )
            for row in rows
        ],
    )


def _write_confusion(report: EvaluationReport, stream: IO[str]) -> None:
    """Print the confusion matrix; for many classes, its largest cells."""
    labels = {row.index: report.model.titles[row.index] for row in report.classes}
    if len(labels) <= _FEW:
        cells = {(actual, predicted): count for actual, predicted, count in report.confusion}
        stream.write("taken for (across)\n")
        headings = {"": False, **{str(index): True for index in labels}}
        rows = [
            (f"{index} {label}", *(str(cells.get((index, other), "")) for other in labels))
            for index, label in labels.items()
        ]
        _write_table(stream, headings, rows)
        return
    wrong = [cell for cell in report.confusion if cell[0] != cell[1]]
    if wrong:
        stream.write("the most frequent mistakes\n")
        largest = sorted(wrong, key=lambda cell: -cell[2])[:_FEW]
        rows = [(f"{count:,}", labels[actual], labels[predicted]) for actual, predicted, count in largest]
        _write_table(stream, {"images": True, "is": False, "taken for": False}, rows)


def _write_differences(reports: Sequence[EvaluationReport], stream: IO[str]) -> None:
    """Print the F1 of the classes whose names both models share; of many, those that differ most."""
    first, second = (
        {folded(report.model.titles[row.index]): row for row in report.classes if row.support}
        for report in reports
    )
    shared = [name for name in first if name in second]
    if len(shared) > _FEW:
        differing = [name for name in shared if first[name].f1 != second[name].f1]
        shared = sorted(differing, key=lambda name: -abs(first[name].f1 - second[name].f1))[:_FEW]
    titles = reports[0].model.titles
    rows = [(titles[first[name].index], _percent(first[name].f1), _percent(second[name].f1)) for name in shared]
    if rows:
        _write_table(
            stream,
            {"F1 where they differ" if len(first) > _FEW else "F1": False, **dict.fromkeys(_LETTERS, True)},
            rows,
        )


def comparison_in_words(comparison: Comparison) -> str:
    """Return a comparison as a sentence; A and B are the models in the order they were named."""
    verdict = "no more than chance explains" if comparison.p >= _UNLIKELY else "more than chance explains"
    return (
        f"of {counted(comparison.images, 'image', ',')}, only A is right on {comparison.only_first:,} "
        f"and only B on {comparison.only_second:,}: {verdict} (McNemar's exact test, p = {comparison.p:.2g})"
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def _loss(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.4f}"


def _write_table(stream: IO[str], columns: Mapping[str, bool], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. `columns` maps each heading to whether its cells are numbers.

    On a narrow terminal texts wrap, and columns at the right are dropped.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from resnetd_cli.pipeline.sinks.screen import columns as width_of
    from resnetd_cli.pipeline.sinks.screen import open_console

    console = open_console(stream)
    texts = [[printable(cell) for cell in row] for row in rows]
    least = []
    for place, (heading, is_number) in enumerate(columns.items()):
        cells = [heading, *(row[place] for row in texts)]
        words = cells if is_number else [word for cell in cells for word in cell.split()]
        widest = max(map(width_of, words), default=0)
        least.append(_MARGIN + (widest if is_number else min(widest, _PROSE)))
    count = next(count for count in range(len(least), 0, -1) if count == 1 or sum(least[:count]) <= console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, is_number in list(columns.items())[:count]:
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    for row in texts:
        table.add_row(*map(Text, row[:count]))
    console.print(table)
