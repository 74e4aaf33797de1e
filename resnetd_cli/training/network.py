"""The network to train: built with trained or random weights, and a new classifier for the user's classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import ModelError, UsageError, first_line
from resnetd_cli.models.hub import Downloads
from resnetd_cli.models.names import Kind
from resnetd_cli.models.network import Definition, define, load_network
from resnetd_cli.results import Preprocessing
from resnetd_cli.training.ineffective import refuse
from resnetd_cli.training.provenance import origin
from resnetd_cli.training.randomness import seed_all

if TYPE_CHECKING:
    from torch import nn

    from resnetd_cli.training.plan import NetworkChoice
    from resnetd_cli.training.provenance import Origin
    from resnetd_cli.training.recipe import Recipe

_NOT_KEPT = (
    *("file", "source", "hf_hub_id", "hf_hub_filename", "url", "state_dict", "custom_load", "tag"),
    *("label_names", "label_descriptions", "label_offset", "test_input_size", "test_crop_pct"),
)
"""Keys of a pretrained configuration that do not apply to the trained network."""


@dataclass(frozen=True)
class TrainableNetwork:
    """The network that a run trains, as it was before the first step.

    Attributes:
        module: the network, with a classifier for the user's classes.
        name: the MODEL it came from.
        architecture: timm's name of the architecture.
        arguments: what else `timm.create_model` needs to build it again.
        config: timm's configuration of the trained network, as a dictionary.
        preprocessing: how its images are prepared.
        files: the files its weights were loaded from, by their hashes; None for random weights.
    """

    module: nn.Module
    name: str
    architecture: str
    arguments: Mapping[str, Any]
    config: Mapping[str, Any]
    preprocessing: Preprocessing
    files: Origin | None = None

    def record(self) -> dict[str, Any]:
        """Return what `rebuilt` needs to build the network again, as JSON's types, without its weights."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "arguments": dict(self.arguments),
            "config": dict(self.config),
            "preprocessing": asdict(self.preprocessing),
        }


def rebuilt(record: Mapping[str, Any], classes: int, recipe: Recipe) -> TrainableNetwork:
    """Return the network that a run started from, without its weights: a checkpoint holds them.

    Raises:
        ModelError: it cannot be built.
    """
    preprocessing = Preprocessing.of(record["preprocessing"])
    module = _build(record["architecture"], classes, record["arguments"], recipe)
    named = {key: record[key] for key in ("name", "architecture", "arguments", "config")}
    return TrainableNetwork(module, preprocessing=preprocessing, **named)


def pretrained(
    choice: NetworkChoice, classes: int, recipe: Recipe, downloads: Downloads = Downloads()
) -> TrainableNetwork:
    """Return a network with trained weights and a new classifier, whose weights derive from the recipe's seed.

    Args:
        choice: the MODEL, and a checkpoint that replaces its weights.
        classes: number of classes.
        recipe: the settings.
        downloads: whether files may be downloaded.

    Raises:
        ResnetdError: as `models.network.load_network`.
        ModelError: it cannot be given another classifier.
    """
    model, image_size = choice.model_choice.model, choice.model_choice.image_size
    network = load_network(choice.model_choice, downloads)
    definition, module = network.definition, network.module
    seed_all(recipe.seed)
    try:
        module.reset_classifier(classes)  # type: ignore[operator]
    except (AttributeError, NotImplementedError, TypeError) as error:
        reason = f"{model} cannot be given another classifier: {first_line(error)}"
        raise ModelError(reason, hint="choose another model") from error
    arguments = _arguments(definition, network.preprocessing, image_size)
    if recipe.drop_path:  # networks are built with it
        dropping = _build(definition.architecture, classes, arguments, recipe)
        dropping.load_state_dict(module.state_dict())
        module = dropping
    trainable = _trainable(module, definition, arguments, network.preprocessing, classes)
    return replace(trainable, name=network.name, files=origin(network, own_weights=choice.weights is not None))


def untrained(choice: NetworkChoice, classes: int, recipe: Recipe) -> TrainableNetwork:
    """Return one of timm's networks with random weights, which derive from the recipe's seed.

    Raises:
        UnknownModel: there is no such model.
        UsageError: it has trained weights only.
        ModelError: it cannot be built.
    """
    model, image_size = choice.model_choice.model, choice.model_choice.image_size
    ref = model.resolved
    if ref.kind is Kind.HUB:
        raise UsageError(f"{model} has trained weights", hint="finetune starts from them; train takes a timm name")
    definition = define(ref)
    preprocessing = definition.preprocessing(image_size)
    arguments = _arguments(definition, preprocessing, image_size)
    with definition.checked_size(image_size) as is_taken_by:
        seed_all(recipe.seed)
        module = _build(definition.architecture, classes, arguments, recipe)
        is_taken_by(module)
    return _trainable(module, definition, arguments, preprocessing, classes)


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


def _arguments(definition: Definition, preprocessing: Preprocessing, image_size: str) -> dict[str, Any]:
    """Return the arguments that timm builds the network with, except the number of classes."""
    arguments = {key: value for key, value in definition.arguments.items() if key != "num_classes"}
    if definition.config.get("fixed_input_size") and image_size != "train":
        arguments["img_size"] = preprocessing.input_size[1:]
    return arguments


def _trainable(
    module: nn.Module,
    definition: Definition,
    arguments: Mapping[str, Any],
    preprocessing: Preprocessing,
    classes: int,
) -> TrainableNetwork:
    config = {key: value for key, value in definition.config.items() if key not in _NOT_KEPT}
    config |= {
        "num_classes": classes,
        "input_size": preprocessing.input_size,
        "crop_pct": preprocessing.crop_pct,
        "crop_mode": preprocessing.crop_mode,
        "interpolation": preprocessing.interpolation,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
    }
    return TrainableNetwork(
        module, definition.architecture, definition.architecture, arguments, config, preprocessing
    )
