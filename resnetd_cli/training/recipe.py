"""The recipe: every setting of training with its meaning and limits, as a record and as YAML."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

from resnetd_cli.errors import InputError, Reason, UsageError, first_line
from resnetd_cli.pipeline.sources.reading import ReadOptions, read_file
from resnetd_cli.system.files import expand_user
from resnetd_cli.system.values import Choice, Flag, Maybe, Number, Pair, Shares, Text, Value, Whole, unquoted

_FOLDER = Path(__file__).parent / "recipes"
_READING = ReadOptions(max_bytes=2**16)


class Rule(NamedTuple):
    """What a setting means, and which values it takes."""

    help: str
    value: Value


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained: each setting with its type, its meaning and its limits.

    Settings with a default may be missing in files: those written by older versions lack them.
    """

    epochs: Annotated[int, Rule("number of epochs", Whole(1, 100_000))]
    batch_size: Annotated[int, Rule("most images in a step, over all processes", Whole(1, 1_000_000))]
    micro_batch: Annotated[
        int | None,
        Rule(
            "most images that a process runs at once; null: its whole share of a step", Maybe(Whole(1, 1_000_000))
        ),
    ]
    optimizer: Annotated[
        str, Rule("one of timm's, such as sgd (Nesterov) or adamw", Text("the name of one of timm's"))
    ]
    lr: Annotated[float, Rule("highest learning rate", Number(0, 1000))]
    lr_batch: Annotated[
        int | None,
        Rule(
            "batch size that lr is for: it scales with the batch size; null: it does not",
            Maybe(Whole(1, 1_000_000)),
        ),
    ]
    backbone_lr: Annotated[
        float, Rule("learning rate of the backbone, as a share of lr; 0: it is not trained", Number(0, 1))
    ]
    momentum: Annotated[float, Rule("of sgd and other optimisers that have it", Number(0, 0.9999))]
    weight_decay: Annotated[float, Rule("of weights; biases and normalisation layers have none", Number(0, 10))]
    clip_grad: Annotated[
        float | None, Rule("largest norm of the gradients; null: no limit", Maybe(Number(1e-6, 1e6)))
    ]
    schedule: Annotated[
        str, Rule("how the learning rate falls after the warm-up", Choice(("cosine", "step", "poly", "constant")))
    ]
    step_at: Annotated[
        tuple[float, ...], Rule("shares of the run at which a step schedule lowers the rate", Shares())
    ] = (0.3, 0.6, 0.9)
    step_factor: Annotated[float, Rule("factor that it lowers the rate by", Number(0, 1))] = 0.1
    poly_power: Annotated[float, Rule("of a poly schedule; 1: a straight line", Number(0.1, 10))] = 1
    final_lr: Annotated[float, Rule("where cosine and poly end, as a share of lr", Number(0, 1))] = 0
    warmup_epochs: Annotated[
        float, Rule("in which the rate rises from 0; a tenth of epochs at most", Number(0, 100_000))
    ]
    label_smoothing: Annotated[float, Rule("share of a label that is spread over all classes", Number(0, 0.9))]
    mixup: Annotated[float, Rule("alpha of mixup; 0: off", Number(0, 10))]
    cutmix: Annotated[float, Rule("alpha of CutMix; 0: off", Number(0, 10))]
    scale: Annotated[
        tuple[float, float], Rule("share of an image's area that a random crop covers", Pair(0.01, 1))
    ]
    ratio: Annotated[tuple[float, float], Rule("aspect ratio of a random crop: width by height", Pair(0.1, 10))]
    hflip: Annotated[float, Rule("probability of a horizontal flip", Number(0, 1))]
    vflip: Annotated[float, Rule("probability of a vertical flip", Number(0, 1))]
    color_jitter: Annotated[float, Rule("how much brightness, contrast and saturation vary", Number(0, 1))]
    auto_augment: Annotated[
        str | None,
        Rule("one of timm's policies, such as rand-m7-mstd0.5; null: none", Maybe(Text("a policy's name"))),
    ]
    random_erasing: Annotated[float, Rule("probability of erasing a random part", Number(0, 1))]
    head: Annotated[
        str,
        Rule(
            "first weights of the classifier: zero, random, or fitted to the features (probe)",
            Choice(("zero", "random", "probe")),
        ),
    ]
    freeze: Annotated[bool, Rule("train the classifier only", Flag())]
    batch_norm: Annotated[
        str, Rule("batch-norm statistics: learnt (update) or kept (freeze)", Choice(("update", "freeze")))
    ]
    drop_rate: Annotated[float, Rule("dropout before the classifier", Number(0, 0.95))]
    drop_path: Annotated[float, Rule("stochastic depth, if the network has it", Number(0, 0.95))]
    ema_decay: Annotated[
        float | None,
        Rule("decay of the moving average of the weights, which is kept; null: off", Maybe(Number(0, 0.999999))),
    ]
    teacher_temperature: Annotated[float, Rule("temperature of distillation, with a teacher", Number(0.1, 100))]
    precision: Annotated[
        str, Rule("auto: mixed on GPUs, fp32 otherwise", Choice(("auto", "fp32", "fp16", "bf16")))
    ]
    seed: Annotated[int, Rule("seed of all randomness", Whole(0, 2**31 - 1))]

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            if not rule.value.is_right(getattr(self, name)):
                raise UsageError(
                    f"the recipe's {name} is {_brief(getattr(self, name))}", hint=f"it takes {rule.value.takes}"
                )

    @property
    def peak_lr(self) -> float:
        """The head's rate after the warm-up, in proportion to the batch size (Goyal et al. 2017, 1706.02677)."""
        return self.lr if self.lr_batch is None else self.lr * self.batch_size / self.lr_batch

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, and their targets soft."""
        return bool(self.mixup or self.cutmix)

    @property
    def trains_backbone(self) -> bool:
        """Whether anything but the classifier learns by gradients."""
        return not self.freeze and self.backbone_lr > 0

    def replace(self, changes: Mapping[str, Any]) -> Recipe:
        """Return it with some settings changed.

        Raises:
            UsageError: there is no such setting, or the value is not allowed.
        """
        known = {_known(name): _tuples(value) for name, value in changes.items()}
        return dataclasses.replace(self, **known)

    def to_yaml(self) -> str:
        """Return it as YAML, with a comment on each setting."""
        lines = {name: f"{name}: {_scalar(value)}" for name, value in dataclasses.asdict(self).items()}
        width = max(map(len, lines.values()))
        return "".join(f"{line:<{width}}  # {RULES[name].help}\n" for name, line in lines.items())

    def differences(self, other: Recipe) -> list[str]:
        """Return in words where another recipe differs."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return [
            f"{name} {_scalar(mine[name])}, not {_scalar(theirs[name])}"
            for name in mine
            if mine[name] != theirs[name]
        ]


RULES: Mapping[str, Rule] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Recipe, include_extras=True).items()
}
"""The rule of each setting, in the order of the recipe."""


def names() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """Read a recipe: a shipped one, or a YAML file.

    Raises:
        UsageError: there is no such recipe, or the file does not hold one.
    """
    path = _FOLDER / f"{name}.yaml" if name in names() else expand_user(name)
    try:
        data = read_file(str(path), _READING)
    except InputError as error:
        hint = f"available: {', '.join(names())}; or name a YAML file"
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
        raise UsageError(f"{name} lacks {', '.join(missing)}", reason=Reason.RECIPE_INCOMPLETE)
    return Recipe(**{field: _tuples(value) for field, value in settings.items()})


def parse_setting(text: str, where: str = "") -> tuple[str, Any]:
    """Return the name and the value of `NAME=VALUE`.

    Args:
        text: the setting.
        where: what to call the place in errors, such as an option.

    Raises:
        UsageError: it is not written like that, or there is no such setting.
    """
    name, sign, value = text.partition("=")
    setting = _known(name.strip(), where)
    if not sign:
        takes = RULES[setting].value.takes
        message = f"{where} {text}: no value".lstrip()
        raise UsageError(message, reason=Reason.SETTING_WITHOUT_VALUE, details=(setting, takes))
    return setting, read(setting, unquoted(value), f"{where} {setting}".lstrip())


def read(setting: str, text: str, where: str) -> Any:
    """Return the value of a setting from its text, in a file or on the command line.

    Args:
        setting: its name.
        text: the value.
        where: what to call the place in errors.

    Raises:
        UsageError: the setting does not take this value.
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
        raise UsageError(f"{name} is not YAML: {_what_is_wrong(error)}", reason=Reason.NOT_A_RECIPE) from error
    if not isinstance(top, yaml.MappingNode) or not all(isinstance(key, yaml.ScalarNode) for key, _ in top.value):
        raise UsageError(f"{name} is not a recipe", reason=Reason.NOT_A_RECIPE)
    return [(key.value, node) for key, node in top.value]


def _what_is_wrong(error: Exception) -> str:
    """Return why the YAML cannot be read."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"{problem} (line {mark.line + 1})" if mark and problem else first_line(error)


def _text(node: Any, where: str) -> str:
    """Return the text of a YAML scalar, or of a list of them."""
    parts = [node] if isinstance(node.value, str) else node.value
    if not all(isinstance(getattr(part, "value", None), str) for part in parts):
        raise UsageError(f"{where}: not a setting", reason=Reason.NOT_A_SETTING)
    return ", ".join(part.value.strip() for part in parts)


def _known(name: str, where: str = "") -> str:
    """Return a setting's name as the recipe spells it.

    Raises:
        UsageError: there is no such setting.
    """
    setting = name.strip().replace("-", "_").lower()
    if setting not in RULES:
        near = difflib.get_close_matches(setting, RULES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(RULES)}"
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
