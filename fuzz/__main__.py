"""`python -m fuzz TARGET [OPTION...]`: the options are libFuzzer's, as -max_total_time=60, or a file to replay.

Inputs that found something new are kept in fuzz/corpus/TARGET; one that fails is written to the current folder.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

if TYPE_CHECKING:
    from fuzz.targets import Target

_FOLDER = Path(__file__).parent / "corpus"


def load_targets() -> dict[str, Target]:
    """Import what is fuzzed, so that the fuzzer sees which lines run; this takes ten seconds the first time."""
    with atheris.instrument_imports(include=["resnetd_cli", "PIL"]):
        from PIL import Image

        from fuzz.targets import TARGETS

        Image.init()  # imports its formats
    return TARGETS


def main(arguments: list[str]) -> None:
    """Fuzz one target until libFuzzer has had enough."""
    targets = load_targets()
    if not arguments or arguments[0] not in targets:
        raise SystemExit(f"python -m fuzz TARGET [OPTION...]; the targets: {', '.join(targets)}")
    name, *options = arguments
    warnings.simplefilter("ignore")
    corpus = _FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in targets[name].seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    files = [option for option in options if not option.startswith("-")]
    options.append(f"-dict={_FOLDER.parent / 'json.dict'}")
    atheris.Setup([sys.argv[0], *options, *([] if files else [str(corpus)])], targets[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
