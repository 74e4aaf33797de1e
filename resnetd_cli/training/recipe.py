"""How a network is trained: every setting in one record, which files hold as YAML."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from resnetd_cli.errors import UsageError, first_line
from resnetd_cli.files import expand_user

_FOLDER = Path(__file__).parent.parent / "data" / "recipes"
_MAX_BYTES = 2**16


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. `RULES` says what each setting means and may be."""

    epochs: int
    batch_size: int
    micro_batch: int | None
    optimizer: str
    lr: float
    lr_batch: int | None
    backbone_lr: float
    momentum: float
    weight_decay: float
    clip_grad: float | None
    schedule: str
    warmup_epochs: float
    label_smoothing: float
    mixup: float
    cutmix: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    hflip: float
    vflip: float
    color_jitter: float
    auto_augment: str | None
    random_erasing: float
    head: str
    freeze: bool
    batch_norm: str
    drop_rate: float
    drop_path: float
    ema_decay: float | None
    teacher_temperature: float
    precision: str
    seed: int

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            if not rule.is_right(getattr(self, name)):
                raise UsageError(
                    f"the recipe's {name} is {_brief(getattr(self, name))}", hint=f"it takes {rule.takes}"
                )

    @property
    def peak_lr(self) -> float:
        """The classifier's rate after the warm-up: proportional to the batch (Goyal et al. 2017, 1706.02677)."""
        return self.lr if self.lr_batch is None else self.lr * self.batch_size / self.lr_batch

    def replace(self, changes: Mapping[str, Any]) -> Recipe:
        """Return it with some settings changed.

        Raises:
            UsageError: there is no such setting, or it does not take this.
        """
        _check_names(changes)
        return dataclasses.replace(self, **{name: _tuples(value) for name, value in changes.items()})

    def to_yaml(self) -> str:
        """Return it as YAML, with a comment at each setting."""
        lines = [f"{name}: {_scalar(value)}" for name, value in dataclasses.asdict(self).items()]
        width = max(map(len, lines))
        rules = RULES.values()
        return "".join(f"{line:<{width}}  # {rule.help}\n" for line, rule in zip(lines, rules, strict=True))

    def differences(self, other: Recipe) -> list[str]:
        """Return in words where another recipe differs."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return [
            f"{name} {_scalar(mine[name])}, not {_scalar(theirs[name])}"
            for name in mine
            if mine[name] != theirs[name]
        ]


class Rule(NamedTuple):
    """What a setting means and may be."""

    help: str
    is_right: Callable[[Any], bool]
    takes: str


def _whole(low: int, high: int) -> tuple[Callable[[Any], bool], str]:
    def is_right(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return is_right, f"a whole number from {low} to {high}"


def _number(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    return lambda value: _is_number(value) and low <= value <= high, f"a number from {low:g} to {high:g}"


def _pair(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    def is_right(value: Any) -> bool:
        return (
            isinstance(value, tuple)
            and len(value) == 2
            and all(map(_is_number, value))
            and low <= value[0] <= value[1] <= high
        )

    return is_right, f"two numbers from {low:g} to {high:g}, the smaller first"


def _choice(*names: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in names, " or ".join(names)


def _optional(rule: tuple[Callable[[Any], bool], str]) -> tuple[Callable[[Any], bool], str]:
    is_right, takes = rule
    return lambda value: value is None or is_right(value), f"{takes}, or null"


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 100 and value.isascii() and value.isprintable()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_SHARE = _number(0, 1)
RULES = {
    "epochs": Rule("how often each training image is seen", *_whole(1, 100_000)),
    "batch_size": Rule("images in a step, over all processes", *_whole(1, 1_000_000)),
    "micro_batch": Rule("images a process runs at once; null: all of its share", *_optional(_whole(1, 1_000_000))),
    "optimizer": Rule("one of timm's: sgd is Nesterov's, adamw", _text, "the name of one of timm's"),
    "lr": Rule("the highest learning rate", *_number(0, 1000)),
    "lr_batch": Rule(
        "lr is for batches of so many images and scaled to others; null: it is not",
        *_optional(_whole(1, 1_000_000)),
    ),
    "backbone_lr": Rule("rate of all but the classifier, as a share of lr", *_number(0, 1)),
    "momentum": Rule("of sgd", *_number(0, 0.9999)),
    "weight_decay": Rule("of weights; biases and normalisations have none", *_number(0, 10)),
    "clip_grad": Rule("longest gradient; null: any", *_optional(_number(1e-6, 1e6))),
    "schedule": Rule("of the rate, one of timm's", *_choice("cosine", "step", "poly", "constant")),
    "warmup_epochs": Rule("in which the rate rises from 0", *_number(0, 100_000)),
    "label_smoothing": Rule("share of a label that goes to all classes", *_number(0, 0.9)),
    "mixup": Rule("alpha; 0: none", *_number(0, 10)),
    "cutmix": Rule("alpha; 0: none", *_number(0, 10)),
    "scale": Rule("share of an image's area that a crop takes", *_pair(0.01, 1)),
    "ratio": Rule("width by height of a crop", *_pair(0.1, 10)),
    "hflip": Rule("how often an image is mirrored", *_SHARE),
    "vflip": Rule("how often it is turned upside down", *_SHARE),
    "color_jitter": Rule("how far brightness, contrast and saturation vary", *_SHARE),
    "auto_augment": Rule(
        "one of timm's policies, as rand-m7-mstd0.5; null: none", *_optional((_text, "a policy's name"))
    ),
    "random_erasing": Rule("how often a part is blanked out", *_SHARE),
    "head": Rule(
        "how the classifier begins: at zero, at random, or fitted to the features (probe)",
        *_choice("zero", "random", "probe"),
    ),
    "freeze": Rule("train the classifier alone", lambda value: isinstance(value, bool), "true or false"),
    "batch_norm": Rule(
        "statistics: of the batch and learnt (update), or kept (freeze)", *_choice("update", "freeze")
    ),
    "drop_rate": Rule("dropout before the classifier", *_number(0, 0.95)),
    "drop_path": Rule("stochastic depth, where the network has it", *_number(0, 0.95)),
    "ema_decay": Rule(
        "of the moving average of the weights, which is kept; null: none", *_optional(_number(0, 0.999999))
    ),
    "teacher_temperature": Rule("of distillation, with --teacher", *_number(0.1, 100)),
    "precision": Rule("auto: mixed on GPUs, fp32 else", *_choice("auto", "fp32", "fp16", "bf16")),
    "seed": Rule("of everything random", *_whole(0, 2**31 - 1)),
}


def names() -> list[str]:
    """Return the names of the recipes that come with the install."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load(name: str) -> Recipe:
    """Read a recipe: one that comes with the install, or a YAML file.

    Raises:
        UsageError: there is none of this name, or the file does not hold one.
    """
    path = _FOLDER / f"{name}.yaml" if name in names() else expand_user(name)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{name} is not a recipe: it is too long", hint="--print-recipe shows one")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(
            f"no recipe {name}: {reason.lower()}", hint=f"there is {', '.join(names())}; or name a YAML file"
        ) from error
    return parse(text, name)


def parse(text: str, name: str = "the recipe") -> Recipe:
    """Read a recipe's YAML.

    Raises:
        UsageError: it is not a recipe.
    """
    import yaml

    try:
        settings = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{name} is not YAML: {first_line(error)}", hint="--print-recipe shows one") from error
    if not isinstance(settings, dict):
        raise UsageError(f"{name} is not a recipe", hint="--print-recipe shows one")
    _check_names(settings)
    if missing := [field for field in RULES if field not in settings]:
        raise UsageError(f"{name} lacks {', '.join(missing)}", hint="--print-recipe shows a whole one")
    return Recipe(**{field: _tuples(value) for field, value in settings.items()})


def parse_setting(text: str) -> tuple[str, Any]:
    """Return the name and the value of a `NAME=VALUE`, as on the command line.

    Raises:
        UsageError: it is not one, or there is no such setting.
    """
    import yaml

    name, sign, value = text.partition("=")
    _check_names([name])
    try:
        if not sign:
            raise ValueError
        return name, _as_float(yaml.safe_load(value), name)
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(
            f"--set {text}: no value", hint=f"--set {name}=VALUE takes {RULES[name].takes}"
        ) from error


def _as_float(value: Any, name: str) -> Any:
    """YAML takes 1e-4 for text."""
    if isinstance(value, str) and "float" in str(get_type_hints(Recipe)[name]):
        return float(value)
    return value


def _check_names(settings: Any) -> None:
    for name in settings:
        if name not in RULES:
            near = difflib.get_close_matches(str(name), RULES, n=1)
            hint = f"perhaps {near[0]}" if near else f"there is {', '.join(RULES)}"
            raise UsageError(f"recipes have no {_brief(name)}", hint=hint)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _scalar(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True)
    return text.replace("\n...", "").strip()
