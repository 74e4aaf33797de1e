"""The network that is trained: built, given a classifier for the user's classes, and its parameters grouped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import ModelError, UsageError, first_line
from resnetd_cli.models import names
from resnetd_cli.models.names import Kind
from resnetd_cli.models.network import Definition, define, load_network
from resnetd_cli.results import Preprocessing
from resnetd_cli.training.effects import refuse

if TYPE_CHECKING:
    import torch
    from torch import nn

    from resnetd_cli.training.recipe import Recipe

_OWN_PLACES = ("file", "source", "hf_hub_id", "hf_hub_filename", "url", "state_dict", "custom_load", "tag")
"""What a configuration says of where the pretrained weights came from: not of those that are trained here."""


@dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
        module: the network, on the CPU, with a classifier for the classes.
        name: of the MODEL it came from.
        architecture: timm's name for it.
        arguments: what else `timm.create_model` needs to build it again.
        config: timm's configuration of the trained network, as a dictionary.
        preprocessing: how it wants its images.
    """

    module: nn.Module
    name: str
    architecture: str
    arguments: Mapping[str, Any]
    config: Mapping[str, Any]
    preprocessing: Preprocessing

    def record(self) -> dict[str, Any]:
        """Return what `again` builds the network from, as JSON's types; its weights are not in it."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "arguments": dict(self.arguments),
            "config": dict(self.config),
            "preprocessing": asdict(self.preprocessing),
        }


def again(record: Mapping[str, Any], classes: int, recipe: Recipe) -> Start:
    """Return a network as it was at the beginning of a run, but for its weights, which a checkpoint holds.

    Raises:
        ModelError: it cannot be built.
    """
    how: Mapping[str, Any] = record["preprocessing"]
    preprocessing = Preprocessing(**{key: _tuple(value) for key, value in how.items()})
    module = _build(record["architecture"], classes, record["arguments"], recipe)
    named = {key: record[key] for key in ("name", "architecture", "arguments", "config")}
    return Start(module, preprocessing=preprocessing, **named)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def pretrained(
    model: str,
    classes: int,
    recipe: Recipe,
    *,
    weights: Path | None = None,
    image_size: str = "train",
    offline: bool = False,
    progress: type[Any] | None = None,
) -> Start:
    """Return a network with its trained weights and a new classifier, which follows from the recipe's seed.

    Raises:
        ResnetdError: as `factory.load_network`.
        ModelError: it cannot be given another classifier.
    """
    from resnetd_cli.training.loader import seed_all

    network = load_network(model, weights_file=weights, image_size=image_size, offline=offline, progress=progress)
    definition = define(names.resolve(model), offline=offline)
    module = network.module
    seed_all(recipe.seed)  # of a classifier that begins at random
    try:
        module.reset_classifier(classes)  # type: ignore[operator]
    except (AttributeError, NotImplementedError, TypeError) as error:
        reason = f"{model} cannot be given another classifier: {first_line(error)}"
        raise ModelError(reason, hint="choose another model") from error
    arguments = {key: value for key, value in definition.arguments.items() if key != "num_classes"}
    if definition.config.get("fixed_input_size") and image_size != "train":
        arguments["img_size"] = network.preprocessing.input_size[1:]
    if recipe.drop_path:  # which is built into a network
        dropping = _build(definition.architecture, classes, arguments, recipe)
        dropping.load_state_dict(module.state_dict())
        module = dropping
    return _start(module, network.name, definition, arguments, network.preprocessing, classes)


def untrained(model: str, classes: int, recipe: Recipe, *, image_size: str = "train") -> Start:
    """Return a network of timm's with random weights, which follow from the recipe's seed.

    Raises:
        UnknownModel: there is none of this name.
        ModelError: it cannot be built.
    """
    from resnetd_cli.training.loader import seed_all

    ref = names.resolve(model)
    if ref.kind is Kind.HUB:
        raise UsageError(f"{model} has trained weights", hint="finetune begins with them; train wants a timm name")
    definition = define(ref)
    preprocessing = definition.preprocessing(image_size)
    arguments = {key: value for key, value in definition.arguments.items() if key != "num_classes"}
    if definition.config.get("fixed_input_size") and image_size != "train":
        arguments["img_size"] = preprocessing.input_size[1:]
    with definition.checked_size(image_size) as is_taken_by:
        seed_all(recipe.seed)
        module = _build(definition.architecture, classes, arguments, recipe)
        is_taken_by(module)
    return _start(module, definition.architecture, definition, arguments, preprocessing, classes)


def _build(architecture: str, classes: int, arguments: Mapping[str, Any], recipe: Recipe) -> nn.Module:
    import timm

    wanted = {"drop_path_rate": recipe.drop_path} if recipe.drop_path else {}
    try:
        module: nn.Module = timm.create_model(architecture, num_classes=classes, **arguments, **wanted)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, TypeError) and "drop_path_rate" in str(error):
            refuse("drop_path", f"{architecture} has no stochastic depth")
        raise ModelError(f"{architecture} cannot be built: {first_line(error)}", hint="choose another") from error
    return module


def _start(
    module: nn.Module,
    name: str,
    definition: Definition,
    arguments: Mapping[str, Any],
    preprocessing: Preprocessing,
    classes: int,
) -> Start:
    config = {key: value for key, value in definition.config.items() if key not in _OWN_PLACES}
    config |= {
        "num_classes": classes,
        "label_offset": 0,
        "input_size": preprocessing.input_size,
        "crop_pct": preprocessing.crop_pct,
        "crop_mode": preprocessing.crop_mode,
        "interpolation": preprocessing.interpolation,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
    }
    for key in ("label_names", "label_descriptions", "test_input_size", "test_crop_pct", "label_offset"):
        config.pop(key, None)
    return Start(module, name, definition.architecture, arguments, config, preprocessing)


def reorder(module: nn.Module, order: Sequence[int]) -> None:
    """Have a network give its logits in another order of its classes.

    Args:
        module: the network.
        order: the index that each class has so far.
    """
    if list(order) != sorted(order):
        module.register_forward_hook(lambda _, images, logits: logits[:, list(order)])


def classifier_of(module: nn.Module) -> nn.Module:
    """Return the network's classifier.

    Raises:
        ModelError: it has none that can be told from the rest.
    """
    from torch import nn

    find: Any = getattr(module, "get_classifier", nn.Identity)
    classifier = find()
    if isinstance(classifier, tuple):  # of networks that are trained with a teacher: one for each way to learn
        classifier = nn.ModuleList(classifier)
    if not list(classifier.parameters()):
        raise ModelError("the network's classifier has no weights of its own", hint="choose another model")
    return classifier  # type: ignore[no-any-return]


def set_dropping(module: nn.Module, recipe: Recipe) -> None:
    """Have a network in training drop what a recipe asks for, and nothing else.

    Dropout comes right before the layers that give the logits, where timm's networks have theirs. Theirs is not
    used: some have none, and that of others would rest with a frozen backbone.

    Args:
        module: the network, with the stochastic depth that it was built with.
        recipe: the settings.

    Raises:
        UsageError: the network has no place for it.
    """
    from torch import nn

    classifier, classes = classifier_of(module), module.num_classes
    outputs = [
        layer
        for layer in classifier.modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and len(layer.weight) == classes
    ]
    if recipe.drop_rate and not outputs:
        refuse("drop_rate", "the classifier does not end in a layer of the classes")
    has_depth = False
    for layer in module.modules():
        has_depth |= bool(getattr(layer, "drop_prob", 0))
        if not recipe.drop_path and hasattr(layer, "drop_prob"):
            layer.drop_prob = 0.0  # type: ignore[assignment]
        if isinstance(getattr(layer, "drop_rate", None), float):
            layer.drop_rate = 0.0  # type: ignore[assignment]
        if not {*layer.children()}.isdisjoint({classifier, *outputs}):
            for sibling in layer.children():
                if isinstance(sibling, nn.Dropout):
                    sibling.p = 0.0
    if recipe.drop_path and not has_depth:
        refuse("drop_path", "the network has no stochastic depth")
    for layer in outputs if recipe.drop_rate else ():
        layer.register_forward_pre_hook(partial(_drop, recipe.drop_rate))


def _drop(rate: float, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    from torch.nn.functional import dropout

    return dropout(inputs[0], rate, layer.training), *inputs[1:]


def parameter_groups(module: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the parameters that are trained, in groups for the optimiser: without decay on vectors, and with a
    rate of their own for all but the classifier.

    Those of a backbone that does not learn have no gradient: none is computed, and none counts where gradients are
    clipped.
    """
    from timm.optim import param_groups_weight_decay

    head = {id(parameter) for parameter in classifier_of(module).parameters()}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in head or recipe.trains_backbone)
    never = module.no_weight_decay() if hasattr(module, "no_weight_decay") else ()  # type: ignore[operator]
    groups = param_groups_weight_decay(module, recipe.weight_decay, no_weight_decay_list=never)
    return [
        {**group, "params": parameters, "lr_scale": scale}
        for group in groups
        for scale, is_head in ((recipe.backbone_lr, False), (1.0, True))
        if (parameters := [p for p in group["params"] if (id(p) in head) is is_head])
    ]


def set_training(module: nn.Module, recipe: Recipe) -> None:
    """Put a network in training mode; what is frozen stays in evaluation mode."""
    from torch.nn.modules.batchnorm import _BatchNorm

    if recipe.freeze:
        module.eval()
        classifier_of(module).train()
        return
    module.train()
    if recipe.batch_norm == "freeze":
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode for a while, without gradients."""
    import torch

    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for layer, was_training in modes:
            layer.training = was_training


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """Return the network inside of what wraps it for several processes."""
    from timm.utils import unwrap_model

    return unwrap_model(module)  # type: ignore[no-any-return]
