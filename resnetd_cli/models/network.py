"""Build the timm network of a MODEL and load its weights; work out its preprocessing and class names."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.class_names import files, shipped
from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.errors import LabelsError, ModelError, Reason, ResnetdError, UsageError, WeightsError, first_line
from resnetd_cli.models import checkpoint_tensors, checkpoints, config_json, dry_run, embedded, hub
from resnetd_cli.models.hub import Downloads
from resnetd_cli.models.names import Kind, ModelChoice, ResolvedModel
from resnetd_cli.results import LARGEST_SIDE, FittedTemperature, Preprocessing, with_temperature
from resnetd_cli.system.memory import limited

if TYPE_CHECKING:
    from torch import nn


# What timm takes where a configuration does not say.
_INPUT_SIZE = (3, 224, 224)
_CROP = 0.875
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MOST_MODULES = 100_000
"""Limit for one network: timm's largest have a few thousand."""


@dataclass(frozen=True)
class Definition:
    """What is known of a model before its weights are loaded.

    Attributes:
        ref: the MODEL.
        architecture: timm's name for the network.
        config: timm's pretrained configuration, as a dictionary.
        arguments: further arguments for `timm.create_model`.
        stored: the temperatures stored with it.
    """

    ref: ResolvedModel
    architecture: str
    config: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    stored: tuple[FittedTemperature, ...] = ()

    def name_with(self, file: Path) -> str:
        """Return the network's name when it has these weights instead of its own."""
        return f"{self.architecture}:{file.name}"

    def preprocessing(self, image_size: str = "train") -> Preprocessing:
        """Return the model's preprocessing, as timm's `resolve_data_config` does.

        Args:
            image_size: `train` or `test` for the configuration's size and crop, or the side in pixels.
        """
        config = self.config
        test_size, test_crop = (
            (config.get("test_input_size"), config.get("test_crop_pct")) if image_size == "test" else (None, None)
        )
        if image_size not in ("train", "test"):
            test_size = (3, pixels(image_size), pixels(image_size))
        own_size = config.get("input_size")
        try:
            return Preprocessing(
                input_size=tuple(next(size for size in (test_size, own_size, _INPUT_SIZE) if size is not None)),
                crop_pct=test_crop or config.get("crop_pct") or _CROP,
                crop_mode=config.get("crop_mode") or "center",
                interpolation=config.get("interpolation") or "bicubic",
                mean=tuple(config.get("mean") or _MEAN),
                std=tuple(config.get("std") or _STD),
            )
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            message = f"{self.ref.name}: its preprocessing is invalid: {first_line(error)}"
            raise ModelError(message, hint="choose another model, or correct its config.json") from error

    @property
    def temperatures(self) -> tuple[FittedTemperature, ...]:
        """The temperatures stored with it, each with the image size that it was fitted for."""
        if not self.stored:
            return ()
        own = self.preprocessing()
        found: tuple[FittedTemperature, ...] = ()
        for each in self.stored:
            found = with_temperature(found, each.resolved(own))
        return found

    @contextmanager
    def checked_size(self, image_size: str) -> Iterator[Callable[[nn.Module], None]]:
        """Check that the network built within this context accepts an image size given in pixels.

        Yields:
            A function to call with the network, which checks it.

        Raises:
            UsageError: the network cannot be built for that size, or does not accept it.
        """
        if image_size in ("train", "test"):
            yield lambda module: None
            return
        side = pixels(image_size)

        def is_taken_by(module: nn.Module) -> None:
            if not dry_run.takes(module.eval(), (side, side)):
                dry_run.refuse_size(self.architecture, self.arguments, self.config, side)

        try:
            yield is_taken_by
        except (ModelError, WeightsError):
            if self.config.get("fixed_input_size"):
                dry_run.refuse_size(self.architecture, self.arguments, self.config, side)
            raise

    def class_names(self, classes: int, *, own_weights: bool) -> ClassNames:
        """Return the model's own class names, those of its ImageNet subset, or numbers.

        Args:
            classes: number of classes of the network.
            own_weights: the user provided the weights, so names that do not fit them are ignored.

        Raises:
            LabelsError: the model's own names do not fit it.
        """
        own = self.config.get("label_names")
        if own and not (own_weights and isinstance(own, Sized) and len(own) != classes):
            return files.from_checkpoint(own, self.config.get("label_descriptions"), classes)
        return shipped.for_class_count(classes) or shipped.unnamed(classes)


@dataclass(frozen=True)
class Network:
    """A timm network with its weights loaded, its preprocessing and its class names.

    Attributes:
        name: the model's name in records.
        definition: what it was built from.
        module: in evaluation mode, on the CPU, float32.
        file: the weights file.
        preprocessing: how images are prepared.
        class_names: the names of its classes.
        misfit: why its own class names do not fit, if so; the class names are then numbers.
        temperatures: divisors of its logits, by image size and precision.
    """

    name: str
    definition: Definition
    module: nn.Module
    file: Path
    preprocessing: Preprocessing
    class_names: ClassNames
    misfit: LabelsError | None = None
    temperatures: tuple[FittedTemperature, ...] = ()


def load_network(choice: ModelChoice, downloads: Downloads = Downloads()) -> Network:
    """Download a model's files, build the network, and load its weights.

    Raises:
        ResnetdError: see `ModelRef.resolved`, `define`, `find_weights` and `build`.
    """
    ref, image_size = choice.model.resolved, choice.image_size
    own_weights = choice.weights is not None
    # Download first, so that its errors come before the seconds that importing torch and timm takes.
    if not own_weights:
        prefetch(ref, downloads)
    definition = define(ref, downloads)
    preprocessing = definition.preprocessing(image_size)
    file = find_weights(definition, choice.weights, downloads)
    with definition.checked_size(image_size) as is_taken_by:
        module = build(definition, file, own_weights=own_weights, image_size=image_size)
        is_taken_by(module)
    # With other weights it is no longer the model of that name.
    name = definition.name_with(file) if own_weights else ref.name
    classes = int(getattr(module, "num_classes", 0) or 0)
    temperatures = () if own_weights or not has_own_weights(ref) else definition.temperatures
    misfit: LabelsError | None = None
    try:
        names = definition.class_names(classes, own_weights=own_weights)
    except LabelsError as error:
        names, misfit = shipped.unnamed(classes), error
    return Network(name, definition, module, file, preprocessing, names, misfit, temperatures)


def has_own_weights(ref: ResolvedModel) -> bool:
    """Return whether a MODEL means its folder's own weights, and not another file in the folder."""
    if ref.file is None:
        return True
    with suppress(WeightsError, OSError):
        return ref.file.samefile(checkpoints.find(Path(ref.location)))
    return False


def prefetch(ref: ResolvedModel, downloads: Downloads = Downloads()) -> None:
    """Download the files that are certainly needed, without importing timm; do nothing if only timm knows them.

    Raises:
        HubError: the download failed.
    """
    repo, names = hub_id(ref), hub.CONFIG if ref.kind is Kind.HUB else hub.WEIGHTS
    if repo and not hub.cached(repo, names):
        hub.fetch(repo, names, downloads)


def define(ref: ResolvedModel, downloads: Downloads = Downloads()) -> Definition:
    """Look up a model's configuration: in timm, on the hub, or in its folder.

    Raises:
        HubError: the download failed.
        ModelError: timm cannot read the configuration.
    """
    import timm

    if ref.kind in (Kind.TIMM, Kind.EMBEDDED):
        config = timm.get_pretrained_cfg(ref.location)
        return Definition(ref, ref.location.partition(".")[0], config.to_dict() if config else {})
    folder = Path(ref.location)
    if ref.kind is Kind.HUB:
        folder = hub.fetch(ref.location, hub.CONFIG, downloads).parent
    config, architecture, arguments = config_json.read(ref.name, folder)
    return Definition(ref, architecture, config, arguments, config_json.read_temperatures(ref.name, folder))


def find_weights(definition: Definition, file: Path | None = None, downloads: Downloads = Downloads()) -> Path:
    """Return the model's weights file, after downloading it if necessary.

    Args:
        definition: the model.
        file: the file to use instead of the model's own weights, from `--weights`.
        downloads: whether files may be downloaded.

    Raises:
        WeightsError: there are no weights, or they cannot be downloaded.
    """
    ref, config = definition.ref, definition.config
    if file is not None:
        if not os.path.isfile(file):
            if os.path.isdir(file):
                raise WeightsError(f"no weights file {file}: it is a folder", hint="give the folder as the model")
            raise WeightsError(f"no weights file {file}", reason=Reason.WEIGHTS_NOT_FOUND)
        return file
    if ref.kind is Kind.EMBEDDED:
        return embedded.weights_file()
    if ref.kind is Kind.FOLDER:
        return ref.file or checkpoints.find(Path(ref.location))
    repo = ref.location if ref.kind is Kind.HUB else config.get("hf_hub_id")
    if repo:
        names = (config["hf_hub_filename"],) if config.get("hf_hub_filename") else hub.WEIGHTS
        return hub.fetch(repo, names, downloads)
    if config.get("url"):
        return _download_url(config["url"], offline=downloads.offline)
    raise WeightsError(f"timm has no trained weights for {ref.name}", reason=Reason.UNTRAINED)


def hub_id(ref: ResolvedModel) -> str | None:
    """Return the hub repository of a model's weights if it is known without timm."""
    if ref.kind is Kind.HUB:
        return ref.location
    return ref.entry.hub_id if ref.entry else None


def build(definition: Definition, file: Path, *, own_weights: bool, image_size: str = "train") -> nn.Module:
    """Build the network and load its weights.

    Args:
        definition: the model.
        file: its weights.
        own_weights: the user provided the file: its classifier may have any number of classes.
        image_size: as in `Definition.preprocessing`; networks with a fixed input size are built for it.

    Returns:
        The network in evaluation mode, on the CPU, float32.

    Raises:
        WeightsError: the file cannot be read, or belongs to another architecture.
    """
    import timm

    config, arguments = dict(definition.config), dict(definition.arguments)
    is_embedded = definition.ref.kind is Kind.EMBEDDED and not own_weights
    classes, overlay = None, _load(definition, file, is_embedded=is_embedded)
    if "state_dict" in overlay and not is_embedded:
        # timm would drop a classifier whose size differs from the configuration's, and predict at random.
        classes = checkpoints.class_count(overlay["state_dict"], config)
    if classes or (classes == 0 and own_weights):
        arguments["num_classes"] = config["num_classes"] = classes
    if config.get("fixed_input_size") and image_size != "train":
        arguments["img_size"] = definition.preprocessing(image_size).input_size[1:]
    with _fitting(definition, file), bounded_building(checkpoints.building_bytes(file)):
        network = timm.create_model(
            definition.architecture,
            pretrained=True,
            pretrained_cfg=config,
            pretrained_cfg_overlay=overlay,
            **arguments,
        )
    network.pretrained_cfg.pop("state_dict", None)
    return network.eval()  # type: ignore[no-any-return]


def with_weights(definition: Definition, file: Path) -> Definition:
    """Return a network's definition for other weights: with their number of classes, and without temperatures.

    Raises:
        WeightsError: the file cannot be read, or holds more than the network.
    """
    find_weights(definition, file)
    tensors = _load(definition, file, is_embedded=False).get("state_dict", {})
    classes = checkpoints.class_count(tensors, definition.config) if tensors else None
    known = {} if classes is None else {"num_classes": classes}
    arguments, config = {**definition.arguments, **known}, {**definition.config, **known}
    return replace(definition, config=config, arguments=arguments, stored=())


def outline(definition: Definition) -> nn.Module:
    """Build a network on the meta device: its tensors have names and shapes, but no values and no memory.

    Raises:
        Exception: whatever timm raises on a configuration that it cannot build.
    """
    import timm
    import torch

    with bounded_building(checkpoints.BUILDING_BYTES), torch.device("meta"):
        network: nn.Module = timm.create_model(
            definition.architecture, pretrained_cfg=dict(definition.config), **definition.arguments
        )
    return network.eval()


def _load(definition: Definition, file: Path, *, is_embedded: bool) -> dict[str, Any]:
    """Return the `pretrained_cfg_overlay` that makes timm use this checkpoint. timm reads only `.npz` itself.

    Raises:
        WeightsError: it cannot be read, or holds more than the network.
    """
    if file.suffix == checkpoints.NUMPY:
        checkpoints.check_numpy(file)
        return {"file": str(file), "custom_load": True}
    found = checkpoints.read(file)
    with _fitting(definition, file):
        if is_embedded:
            return {"state_dict": embedded.to_timm(found[0].tensors)}
        architecture, config = definition.architecture, definition.config
        return {
            "state_dict": checkpoint_tensors.fit(
                file, found, architecture, config, lambda: outline(definition).state_dict()
            )
        }


@contextmanager
def _fitting(definition: Definition, file: Path) -> Iterator[None]:
    """Turn any error that timm raises for weights that do not fit into `WeightsError`."""
    try:
        yield
    except ResnetdError:
        raise
    except Exception as error:
        raise checkpoints.does_not_fit(definition.architecture, file, error) from error


@contextmanager
def bounded_building(memory: int) -> Iterator[None]:
    """Limit the memory (bytes) and the modules of a network while it is built, as configurations may be hostile.

    Raises:
        MemoryError: a limit was reached; torch may raise its own error for lack of memory.
    """
    from torch.nn.modules import module

    count = itertools.count()

    def check(*_: object) -> None:
        if next(count) > _MOST_MODULES:
            raise MemoryError(f"it has more than {_MOST_MODULES:,} modules")

    hook = module.register_module_module_registration_hook(check)
    try:
        with limited(memory):
            yield
    finally:
        hook.remove()


def pixels(image_size: str) -> int:
    """Return the side in pixels of an image size other than `train` and `test`.

    Raises:
        UsageError: it is not a number, or out of range.
    """
    if not re.fullmatch(r"[0-9]{2,4}", image_size) or not 16 <= int(image_size) <= LARGEST_SIDE:
        raise UsageError(
            f"{image_size!r} is not an image size", hint=f"train, test, or pixels from 16 to {LARGEST_SIDE}"
        )
    return int(image_size)


def _download_url(url: str, *, offline: bool) -> Path:
    """Download weights from a plain URL; the file name contains their hash."""
    from timm.models._hub import download_cached_file, get_cache_dir

    target = Path(get_cache_dir()) / url.rpartition("/")[2]
    if offline and not target.exists():
        raise WeightsError(f"{url} is not on this machine, and this is an offline run", hint="run it once online")
    try:
        return Path(download_cached_file(url, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"cannot get {url}: {error}", reason=Reason.WEIGHTS_NOT_FETCHED) from error
