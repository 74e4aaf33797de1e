"""How a network is trained: every setting in one record, which files hold as YAML."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from resnetd_cli.errors import InputError, UsageError, first_line
from resnetd_cli.pipeline.sources.reading import ReadOptions, read_file
from resnetd_cli.system.files import expand_user
from resnetd_cli.system.values import Choice, Flag, Maybe, Number, Pair, Shares, Text, Value, Whole, unquoted

_FOLDER = Path(__file__).parent / "recipes"
_READING = ReadOptions(max_bytes=2**16)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained. `RULES` says what each setting means and may be.

    Files may lack the settings that have a default: those written before there were such settings do.
    """

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
    step_at: tuple[float, ...] = (0.3, 0.6, 0.9)
    step_factor: float = 0.1
    poly_power: float = 1
    final_lr: float = 0
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
            if not rule.value.is_right(getattr(self, name)):
                raise UsageError(
                    f"the recipe's {name} is {_brief(getattr(self, name))}", hint=f"it takes {rule.value.takes}"
                )

    @property
    def peak_lr(self) -> float:
        """The classifier's rate after the warm-up: proportional to the batch (Goyal et al. 2017, 1706.02677)."""
        return self.lr if self.lr_batch is None else self.lr * self.batch_size / self.lr_batch

    @property
    def trains_backbone(self) -> bool:
        """Whether anything but the classifier learns by gradients."""
        return not self.freeze and self.backbone_lr > 0

    def replace(self, changes: Mapping[str, Any]) -> Recipe:
        """Return it with some settings changed.

        Raises:
            UsageError: there is no such setting, or it does not take this.
        """
        known = {_known(name): _tuples(value) for name, value in changes.items()}
        return dataclasses.replace(self, **known)

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
    value: Value


_SHARE = Number(0, 1)
RULES = {
    "epochs": Rule("how often each training image is seen", Whole(1, 100_000)),
    "batch_size": Rule("most images in a step, over all processes", Whole(1, 1_000_000)),
    "micro_batch": Rule("images a process runs at once; null: all of its share", Maybe(Whole(1, 1_000_000))),
    "optimizer": Rule("one of timm's: sgd is Nesterov's, adamw", Text("the name of one of timm's")),
    "lr": Rule("the highest learning rate", Number(0, 1000)),
    "lr_batch": Rule(
        "lr is for batches of so many images and scaled to others; null: it is not", Maybe(Whole(1, 1_000_000))
    ),
    "backbone_lr": Rule("rate of all but the classifier, as a share of lr; 0: they do not learn", _SHARE),
    "momentum": Rule("of sgd and others that have it", Number(0, 0.9999)),
    "weight_decay": Rule("of weights; biases and normalisations have none", Number(0, 10)),
    "clip_grad": Rule("longest gradient; null: any", Maybe(Number(1e-6, 1e6))),
    "schedule": Rule("how the rate falls after the warm-up", Choice(("cosine", "step", "poly", "constant"))),
    "step_at": Rule("shares of the run at which a step schedule lowers the rate", Shares()),
    "step_factor": Rule("what it multiplies the rate by", Number(0, 1)),
    "poly_power": Rule("of a poly schedule; 1: a straight line", Number(0.1, 10)),
    "final_lr": Rule("where cosine and poly end, as a share of lr", _SHARE),
    "warmup_epochs": Rule("in which the rate rises from 0; a tenth of --epochs at most", Number(0, 100_000)),
    "label_smoothing": Rule("share of a label that goes to all classes", Number(0, 0.9)),
    "mixup": Rule("alpha; 0: none", Number(0, 10)),
    "cutmix": Rule("alpha; 0: none", Number(0, 10)),
    "scale": Rule("share of an image's area that a crop takes", Pair(0.01, 1)),
    "ratio": Rule("width by height of a crop", Pair(0.1, 10)),
    "hflip": Rule("how often an image is mirrored", _SHARE),
    "vflip": Rule("how often it is turned upside down", _SHARE),
    "color_jitter": Rule("how far brightness, contrast and saturation vary", _SHARE),
    "auto_augment": Rule("one of timm's policies, as rand-m7-mstd0.5; null: none", Maybe(Text("a policy's name"))),
    "random_erasing": Rule("how often a part is blanked out", _SHARE),
    "head": Rule(
        "how the classifier begins: at zero, at random, or fitted to the features (probe)",
        Choice(("zero", "random", "probe")),
    ),
    "freeze": Rule("train the classifier alone", Flag()),
    "batch_norm": Rule(
        "statistics: of the batch and learnt (update), or kept (freeze)", Choice(("update", "freeze"))
    ),
    "drop_rate": Rule("dropout of what the classifier sees", Number(0, 0.95)),
    "drop_path": Rule("stochastic depth, where the network has it", Number(0, 0.95)),
    "ema_decay": Rule(
        "of the moving average of the weights, which is kept; null: none", Maybe(Number(0, 0.999999))
    ),
    "teacher_temperature": Rule("of distillation, with --teacher", Number(0.1, 100)),
    "precision": Rule("auto: mixed on GPUs, fp32 else", Choice(("auto", "fp32", "fp16", "bf16"))),
    "seed": Rule("of everything random", Whole(0, 2**31 - 1)),
}


def names() -> list[str]:
    """Return the names of the recipes that come with the install."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """Read a recipe: one that comes with the install, or a YAML file.

    Raises:
        UsageError: there is none of this name, or the file does not hold one.
    """
    path = _FOLDER / f"{name}.yaml" if name in names() else expand_user(name)
    try:
        data = read_file(str(path), _READING)
    except InputError as error:
        hint = f"there is {', '.join(names())}; or name a YAML file"
        raise UsageError(f"no recipe {name}: {error.message}", hint=hint) from error
    return parse(data, name)


def parse(text: str | bytes, name: str = "the recipe") -> Recipe:
    """Read a recipe's YAML, in UTF-8 or UTF-16.

    Raises:
        UsageError: it is not a recipe.
    """
    settings: dict[str, Any] = {}
    for key, node in _entries(text, name):
        where = f"{name}, line {node.start_mark.line + 1}"
        setting = _known(key, where)
        if setting in settings:
            raise UsageError(f"{where}: {setting} is set twice", hint="leave one of them out")
        settings[setting] = read(setting, _text(node, where), f"{where}: {setting}")
    needed = [field.name for field in dataclasses.fields(Recipe) if field.default is dataclasses.MISSING]
    if missing := [setting for setting in needed if setting not in settings]:
        raise UsageError(f"{name} lacks {', '.join(missing)}", hint="--print-recipe shows a whole one")
    return Recipe(**{field: _tuples(value) for field, value in settings.items()})


def parse_setting(text: str) -> tuple[str, Any]:
    """Return the name and the value of a `NAME=VALUE`, as on the command line.

    Raises:
        UsageError: it is not one, or there is no such setting.
    """
    name, sign, value = text.partition("=")
    setting = _known(name.strip(), "--set")
    if not sign:
        takes = RULES[setting].value.takes
        raise UsageError(f"--set {text}: no value", hint=f"--set {setting}=VALUE takes {takes}")
    return setting, read(setting, unquoted(value), f"--set {setting}")


def read(setting: str, text: str, where: str) -> Any:
    """Return the value of a setting that is written as text, here or there.

    Args:
        setting: its name.
        text: the value.
        where: what to call it in errors.

    Raises:
        UsageError: it is not one.
    """
    rule, reason = RULES[setting].value, ""
    try:
        value = rule.read(text)
        if rule.is_right(_tuples(value)):
            return value
    except (ValueError, OverflowError) as error:
        reason = str(error)
    hint = reason if reason.startswith("write") else f"it takes {rule.takes}"
    raise UsageError(f"{where} is {_brief(text)}", hint=hint)


def _entries(text: str | bytes, name: str) -> list[tuple[str, Any]]:
    """Return the keys of a YAML mapping and the nodes of their values."""
    import yaml

    try:
        top = yaml.compose(text, yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(
            f"{name} is not YAML: {_what_is_wrong(error)}", hint="--print-recipe shows one"
        ) from error
    if not isinstance(top, yaml.MappingNode) or not all(isinstance(key, yaml.ScalarNode) for key, _ in top.value):
        raise UsageError(f"{name} is not a recipe", hint="--print-recipe shows one")
    return [(key.value, node) for key, node in top.value]


def _what_is_wrong(error: Exception) -> str:
    """Return why YAML cannot be read."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"{problem} (line {mark.line + 1})" if mark and problem else first_line(error)


def _text(node: Any, where: str) -> str:
    """Return what is written in a YAML scalar, or a list of them."""
    parts = [node] if isinstance(node.value, str) else node.value
    if not all(isinstance(getattr(part, "value", None), str) for part in parts):
        raise UsageError(f"{where}: not a setting", hint="--print-recipe shows how they are written")
    return ", ".join(part.value.strip() for part in parts)


def _known(name: str, where: str = "") -> str:
    """Return a setting's name as it is spelled in `RULES`.

    Raises:
        UsageError: there is none of this name.
    """
    setting = name.strip().replace("-", "_").lower()
    if setting not in RULES:
        near = difflib.get_close_matches(setting, RULES, n=1)
        hint = f"perhaps {near[0]}" if near else f"there is {', '.join(RULES)}"
        raise UsageError(f"{where and f'{where}: '}recipes have no {_brief(name)}", hint=hint)
    return setting


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _scalar(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True)
    return text.replace("\n...", "").strip()
