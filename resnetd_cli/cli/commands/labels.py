"""`resnetd labels`: search the ImageNet class names, or download them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Optional

import typer

from resnetd_cli.cli import options
from resnetd_cli.cli.console import terminal
from resnetd_cli.errors import UsageError

_COLUMNS = {"index": "index", "id": "id", "name": "name", "definition": "definition", "synonyms": "synonyms"}


def labels(
    query: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[QUERY]", help="Words from a name or definition, a WordNet id, or an index."),
    ] = None,
    subset: Annotated[
        str,
        typer.Option(
            "--set", metavar="NAME", help="Class set: imagenet-1k, -12k, -21k-goog, -21k-miil, -22k or -22k-ms."
        ),
    ] = "imagenet-1k",
    download: Annotated[
        bool,
        typer.Option("--download", help="Download the list of 1,000 names into the cache and print its path."),
    ] = False,
    url: Annotated[
        Optional[str], typer.Option("--url", metavar="URL", help="With --download: the URL to download from.")
    ] = None,
    format: options.OutputFormat = options.Format.AUTO,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    no_header: options.NoHeader = False,
    quiet: options.QuietAnyway = False,
    verbose: options.Verbose = False,
) -> int:
    """Search the ImageNet class names.

    resnetd labels terrier

    resnetd labels n02111889 --set imagenet-12k

    resnetd predict dog.jpg --labels "$(resnetd labels --download)"
    """
    terminal.setup(quiet=quiet, verbose=verbose)

    from resnetd_cli.class_names import files
    from resnetd_cli.class_names.shipped import imagenet, search
    from resnetd_cli.cli.outputs import TextOutput, open_text
    from resnetd_cli.system.files import cache_dir
    from resnetd_cli.views.listing import write_rows

    if download:
        path = files.download(url or files.SEED_URL, cache=cache_dir())
        with open_text(None) as stream:
            stream.write(f"{path}\n")
        return 0
    target = TextOutput.choose(format.value, output, overwrite=overwrite)
    wanted = " ".join(query or [])
    names = imagenet(subset)
    entries = search(wanted, names)
    if not entries:
        raise UsageError(
            f"no class of {subset} matches {wanted!r}", hint="try a part of the word, or another --set"
        )
    with target.open() as stream:
        rows = [asdict(entry) for entry in entries]
        if target.format == "table":  # people must be able to tell one crane from the other
            rows = [{**row, "name": names.titles[row["index"]]} for row in rows]
        write_rows(rows, stream, target.format, header=not no_header, columns=_COLUMNS, essential="name")
    return 0
