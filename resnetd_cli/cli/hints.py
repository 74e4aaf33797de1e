"""Hints: for each reason of an error, which options of the running command help."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Protocol

from resnetd_cli.errors import Reason

HINTS: dict[Reason, tuple[str, ...]] = {
    # Inputs: reading and decoding.
    Reason.TOO_MANY_BYTES: ("--max-bytes raises the limit",),
    Reason.TOO_MANY_PIXELS: ("--max-pixels raises the limit",),
    Reason.TOO_SLOW: ("--timeout raises the limit",),
    Reason.SERVER_TOO_SLOW: (
        "try again, or raise --timeout, which also limits each wait",
        "try again",
    ),
    Reason.SERVER_BUSY: ("try again later, or with a longer --timeout", "try again later"),
    Reason.PRIVATE_HOST: ("allow it with --allow-private-hosts",),
    Reason.TRUNCATED: ("--allow-truncated classifies what could be read", "fetch or export it again"),
    Reason.NO_MORE_PROCESSES: (
        "use fewer --workers; ulimit -n and -u show the limits",
        "ulimit -n and -u show the limits",
    ),
    Reason.NO_MORE_THREADS: (
        "try --workers 1; ulimit -u and -v show the limits",
        "ulimit -u and -v show the limits",
    ),
    Reason.NO_MEMORY: (
        "use fewer --workers or a lower --batch-size",
        "use a lower --batch-size",
        "close other programs",
    ),
    Reason.NO_MEMORY_FOR_IMAGE: ("run it alone, or with a lower --batch-size", "run it alone"),
    Reason.NOT_NAMED_LIKE_IMAGES: ("--all-files detects images by content",),
    Reason.LINKS_SKIPPED: ("--follow follows links",),
    Reason.ONLY_LINKS: ("--follow follows links", "name the folders that they lead to"),
    Reason.LIST_NOT_OPENED: ("--files-from takes a file, or - for stdin",),
    Reason.LIST_NOT_READ: ("--files-from takes a file",),
    Reason.LIST_ENTRIES: ("--files-from reads one name per line, or with --null NUL-separated names",),
    Reason.NOT_A_LIST: ("name images as INPUT, without --files-from",),
    # Outputs.
    Reason.OUTPUT_EXISTS: ("--overwrite replaces it",),
    Reason.OUTPUT_NOT_WRITABLE: ("choose another place with -o",),
    Reason.FORMAT_UNCLEAR: ("-f chooses it: {}",),
    # Class names.
    Reason.LABELS_NOT_FOUND: ("--labels takes a file or an http(s) URL",),
    Reason.LABELS_NOT_READ: ("--labels takes a file",),
    Reason.LABELS_NOT_A_LIST: ("--labels takes a file with a line per class, in class order",),
    Reason.LABELS_UNORDERED: ("or leave out --labels",),
    Reason.MODEL_NAMES_UNFIT: ("name the classes with --labels FILE",),
    Reason.CLASSES_UNKNOWN: ("--labels FILE gives the model other class names",),
    Reason.SOME_CLASSES_UNKNOWN: (
        "--labels FILE gives the model other class names; --skip-unknown leaves their images out",
        "--labels FILE gives the model other class names",
    ),
    Reason.CLASSES_MISSPELT: ("--skip-unknown leaves their images out",),
    Reason.NO_CLASS_KNOWN: ("--labels FILE gives the model other class names",),
    # Models.
    Reason.UNKNOWN_MODEL: ("resnetd list-models --all shows every name",),
    Reason.NOT_OF_TIMM: ("choose one of timm's: resnetd list-models --all",),
    Reason.MODEL_OF_ANOTHER_TOOL: ("resnetd runs timm's models: resnetd list-models --all shows them",),
    Reason.MODEL_AT_URL: (
        "download it, name its architecture as the model, and give it with --weights",
        "download it, and name its folder as the model",
    ),
    Reason.WEIGHTS_AS_MODEL: (
        "name the architecture as the model, and its weights with --weights {}",
        "name the architecture as the model",
    ),
    Reason.NO_WEIGHTS_FILE: ("check the path; weights are given with --weights", "check the path"),
    Reason.WEIGHTS_NOT_FOUND: ("--weights takes a .safetensors or .pth file",),
    Reason.SEVERAL_WEIGHTS: ("name one of them with --weights: {}",),
    Reason.WEIGHTS_INSIDE: ("leave out --weights",),
    Reason.UNTRAINED: ("--weights FILE loads your own",),
    Reason.WEIGHTS_NOT_FETCHED: (
        "try --model embedded, or --weights FILE",
        "try the model embedded, or --weights FILE",
        "try the model embedded",
    ),
    Reason.HUB: (
        "{}try --model embedded (it comes with the install) or --weights FILE{}",
        "{}try the model embedded (it comes with the install) or --weights FILE{}",
        "{}try the model embedded (it comes with the install){}",
    ),
    Reason.SIZE_NOT_TAKEN: ("--image-size {} works",),
    Reason.NO_TEST_SIZE: ("--image-size N gives its pixels",),
    Reason.FIXED_SIZE: ("resnetd export MODEL --image-size {0} -o FILE.onnx makes one for {0}",),
    Reason.NOT_ON_ONNX: ("--engine torch",),
    Reason.NO_INT8: ("resnetd pull {} --precision int8 --calibrate FOLDER",),
    Reason.NO_INT8_OF_WEIGHTS: ("resnetd pull {} --weights {} --precision int8 --calibrate FOLDER",),
    Reason.NOT_QUANTISED: ("--precision fp32",),
    Reason.NOT_COMPILED: ("--precision fp32 or int8",),
    Reason.COMPILED_ALREADY: ("predict --model runs it directly",),
    Reason.NEEDS_CALIBRATION: ("--calibrate FOLDER: about 64 typical images",),
    Reason.NO_CALIBRATION_IMAGE: (
        "--calibrate takes files, folders and globs; about 64 typical images are enough",
    ),
    Reason.NO_IMAGE_TO_VERIFY: ("--verify takes files, folders and globs",),
    Reason.NOT_EXPORTED: ("resnetd export MODEL -o FILE.onnx writes files that do",),
    Reason.NO_EXPORTED_FILE: ("resnetd export MODEL -o FILE.onnx writes one",),
    Reason.BAD_TEMPERATURE: ("evaluate --fit-temperature fits one",),
    # Evaluation.
    Reason.SINGLE_OUTPUT: (
        "predict gives its probability; predict --min-probability P leaves out what is less likely",
    ),
    Reason.NO_REAL_LABEL: ("leave out --real-labels",),
    Reason.ALL_TRAINED_ON: ("--include-training-images measures on these anyway",),
    Reason.GROUP_BY: ("for example --group-by '(person[0-9]+)_'",),
    Reason.EMPTY_SPLIT: ("--split chooses another",),
    Reason.NO_SPLITS: (
        "its images are not split: without --split, those that a model was trained on are left out",
    ),
    # Training.
    Reason.OTHER_SETTING: ("--set {}",),
    Reason.SETTING_WITHOUT_VALUE: ("--set {}=VALUE takes {}",),
    Reason.SETTING_WITHOUT_EFFECT: ("--set {1}, or leave {0} out",),
    Reason.NO_TEACHER: ("--teacher MODEL, or leave {} out",),
    Reason.IMAGES_RUN_ALONE: ("use a larger --batch-size or micro_batch, or leave {} out",),
    Reason.MICRO_BATCH_TOO_LARGE: ("use a larger --batch-size, or leave {} out",),
    Reason.NOT_A_RECIPE: ("--print-recipe shows one",),
    Reason.RECIPE_INCOMPLETE: ("--print-recipe shows a whole one",),
    Reason.NOT_A_SETTING: ("--print-recipe shows how they are written",),
    Reason.LOSS_NOT_A_NUMBER: ("a lower --lr may help, or --set clip_grad=1",),
    Reason.BATCH_NORM: ("--set batch_norm=freeze",),
    Reason.BATCH_NORM_PER_PROCESS: ("--set batch_norm=freeze, or fewer --processes",),
    Reason.BATCH_NORM_BATCH_SIZE: ("--batch-size {}, or --set batch_norm=freeze",),
    Reason.BATCH_NORM_MICRO_BATCH: ("--set micro_batch=null, or --set batch_norm=freeze",),
    Reason.BATCH_NORM_BOTH_SIZES: ("--batch-size {} --set micro_batch=null, or --set batch_norm=freeze",),
    Reason.TOO_MANY_PROCESSES: ("use fewer --processes",),
    Reason.BATCH_BELOW_PROCESSES: ("use --batch-size {} or fewer --processes",),
    Reason.WORKERS_NOT_STARTED: ("--workers 0 loads images without them",),
    Reason.WORKER_DIED: ("--resume continues from the last checkpoint; fewer --workers use less memory",),
    Reason.WORKER_FAILED: ("-v shows where",),
    Reason.SHARED_MEMORY_FULL: (
        "shared memory (/dev/shm) is full: --workers 0 does not use it; in Docker, --shm-size=1g gives more",
    ),
    Reason.PROCESS_DIED: ("--resume continues from the last checkpoint; fewer --processes use less memory",),
    Reason.RUN_EXISTS: ("--resume continues it, --overwrite starts anew",),
    Reason.RUN_DAMAGED: ("--overwrite starts anew",),
    Reason.RUN_DIFFERS: ("leave out what differs, or start anew with --overwrite",),
    Reason.RUN_OF_ONE_SEED: ("leave out --seeds, or start anew with --overwrite",),
    Reason.RUN_NOT_WRITABLE: ("choose another with -o",),
    Reason.NOT_A_RUN: ("name a new folder with -o",),
    Reason.REPLACES_ITS_ORIGIN: ("name another folder with -o",),
    Reason.IMAGES_CHANGED: ("put them back, or start anew with --overwrite",),
    Reason.FILE_CHANGED: ("put it back, or start anew with --overwrite",),
    Reason.CHECKPOINT_NOT_WRITTEN: ("the last checkpoint is kept: free some space, and continue with --resume",),
}
"""The hints for each reason. The first whose options the command has is shown; `{}` stands for a detail."""

_OPTION = re.compile(r"(?<![\w-])(?:--[a-z][a-z-]*|-[fov](?!\w))")
_OF_OTHER_PROGRAMS = {"--shm-size"}
_CLAUSE = re.compile(r"[;,]")
_COMMAND = re.compile(
    r"(?:^|\bor |\bresnetd )\s*"
    r"(bench|evaluate|export|features|finetune|info|labels|list-models|predict|pull|train) "
)


class Advised(Protocol):
    """Anything with a hint or reason: an error, or the failure of one input."""

    @property
    def hint(self) -> str | None:
        """What to try next, for any command."""

    @property
    def reason(self) -> Reason | None:
        """The reason of the error, if an option may help."""

    @property
    def details(self) -> tuple[object, ...]:
        """The details to put into the hint."""


def hint_of(error: Advised, options: Collection[str] | None = None) -> str | None:
    """Return what to try next, worded for the running command; None if nothing helps.

    Args:
        error: the error or failure.
        options: the command's options; None to allow every option.
    """
    return "; ".join(filter(None, (error.hint, hint_for(error.reason, options, error.details)))) or None


def hint_for(
    reason: Reason | None, options: Collection[str] | None = None, details: tuple[object, ...] = ()
) -> str | None:
    """Return the first hint for a reason whose options the command has; None if there is none.

    Args:
        reason: the reason of the error; None if no option helps.
        options: as in `hint_of`.
        details: the details to put into the hint.
    """
    for text in HINTS[reason] if reason else ():
        if options is None or options_in(text)[None] <= set(options):
            return text.format(*details)
    return None


def options_in(text: str) -> dict[str | None, set[str]]:
    """Return the options that a hint mentions, by command; None stands for the running command."""
    found: dict[str | None, set[str]] = {None: set()}
    for clause in _CLAUSE.split(text):
        command = _COMMAND.search(clause)
        found.setdefault(command[1] if command else None, set()).update(
            set(_OPTION.findall(clause)) - _OF_OTHER_PROGRAMS
        )
    return found
