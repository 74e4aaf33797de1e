"""Load a MODEL as a `Classifier`: choose the engine, and open the compiled form or build timm's network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from resnetd_cli.class_names import files
from resnetd_cli.classifier import Classifier
from resnetd_cli.compiled import build, bundles, exported_file
from resnetd_cli.compiled.bundles import Bundle, BundleKey
from resnetd_cli.compiled.card import Card
from resnetd_cli.compiled.open_bundle import DamagedBundleError, find_intact, open_engine
from resnetd_cli.errors import CacheError, ModelError, Reason, ResnetdError, UsageError
from resnetd_cli.models import config_json, names
from resnetd_cli.models.hub import Downloads
from resnetd_cli.models.names import ModelChoice, ModelRef
from resnetd_cli.models.network import Network, load_network, pixels
from resnetd_cli.pipeline.engines.base import (
    BF16,
    FP32,
    INT8,
    LAYER_LOGITS,
    LAYER_POOLED,
    Engine,
    EngineOptions,
    Wanted,
    graph_precision,
)
from resnetd_cli.pipeline.engines.pytorch import choose_device, gpu_is_likely
from resnetd_cli.pipeline.engines.table import EngineSpec, graph_engine, network_engine
from resnetd_cli.pipeline.options import InputOptions, Runtime
from resnetd_cli.results import (
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    FittedTemperature,
    check_temperature,
    fitting,
    with_temperature,
)
from resnetd_cli.system.escaping import shell_word
from resnetd_cli.system.files import current_folder, name_temporary_folder, name_user

if TYPE_CHECKING:
    from resnetd_cli.models.plain_network import PlainNetwork
    from resnetd_cli.pipeline.engines.onnx import OnnxEngine

_COMPILED_LAYERS = (None, LAYER_POOLED, LAYER_LOGITS)


def load(
    model: str | ModelRef = names.DEFAULT_MODEL,
    *,
    weights: str | Path | None = None,
    image_size: str | int = "train",
    class_names: str | None = None,
    layer: str | None = None,
    offline: bool = False,
    runtime: Runtime | None = None,
    inputs: InputOptions = InputOptions(),
    note: Callable[[str], None] = lambda _: None,
) -> Classifier:
    """Load a model.

    Args:
        model: a timm name, `embedded`, `hf-hub:OWNER/NAME`, a folder, or an exported `.onnx` file.
        weights: a checkpoint to load instead of the model's own weights.
        image_size: `train`, `test`, or pixels.
        class_names: a file or URL with class names to use instead of the model's own.
        layer: the layer for `Classifier.embed`: `pooled`, `logits`, or a stage's name.
        offline: use only files on this machine.
        runtime: engine, precision, device, and how much runs at once.
        inputs: how inputs are read and decoded.
        note: called with a line about anything slow or noteworthy.

    Raises:
        ResnetdError: see `errors`.
    """
    loader = Loader(
        ModelChoice.of(model, weights, image_size),
        class_names=class_names,
        wanted=Wanted(layer=layer),
        runtime=runtime or Runtime(),
        inputs=inputs,
        downloads=Downloads(offline),
        note=note,
    )
    return loader.load()


@dataclass(frozen=True)
class Loader:
    """How to load a model.

    Attributes:
        choice: the model, its weights and its image size.
        class_names: a file or URL with class names to use instead of the model's own.
        temperature: the divisor of the logits to use instead of the model's own.
        wanted: the outputs to compute.
        runtime: engine, precision, device, and how much runs at once.
        inputs: how inputs are read and decoded.
        downloads: whether files may be downloaded.
        note: called with a line about anything slow or noteworthy.
    """

    choice: ModelChoice
    class_names: str | None = None
    temperature: float | None = None
    wanted: Wanted = Wanted()
    runtime: Runtime = field(default_factory=Runtime)
    inputs: InputOptions = InputOptions()
    downloads: Downloads = Downloads()
    note: Callable[[str], None] = lambda _: None

    def load(self) -> Classifier:
        """Load the model.

        Raises:
            ResnetdError: see `errors`.
        """
        self.check()
        reason = self._why_network()
        if reason is not None and (only_graph := self._why_graph()):
            raise UsageError(f"{only_graph}, but {reason}", hint="leave out the option that asks for torch")
        if reason is not None and self._asks_for_graph:
            raise self._no_graph(UsageError, reason)
        if self.model.is_exported:
            return self._load_exported()
        if reason is None and (bundle := bundles.find(self.bundle_key)):
            reason = bundle.failure
            if reason is None:
                try:
                    return self._load_compiled(bundle)
                except DamagedBundleError:
                    bundles.discard(bundle)
        if self.runtime.precision == INT8:
            raise self._no_int8()
        if reason is not None and self._asks_for_graph:
            raise self._no_graph(ModelError, reason)
        if reason is None and (plain := self._plain_network()):
            return self._load_plain(plain)
        return self._load_network(reason)

    def compile(self) -> Bundle:
        """Return the compiled model, after compiling it if necessary. The bundle may hold a failure instead.

        Raises:
            CacheError: the cache cannot be written.
        """
        self.check()
        if bundle := find_intact(self.bundle_key):
            return bundle
        if plain := self._plain_network():
            return self._compile_plain(plain)[0]
        return self._compile(self._network())

    @property
    def model(self) -> ModelRef:
        """The MODEL."""
        return self.choice.model

    @property
    def _engine_options(self) -> EngineOptions:
        return EngineOptions(self.wanted, self.runtime.engine_threads, self.runtime.precision, self.runtime.device)

    @property
    def bundle_key(self) -> BundleKey:
        """The key of its compiled form in the cache."""
        return BundleKey(self.choice, graph_precision(self.runtime.precision))

    def check(self) -> None:
        """Check the options before anything is downloaded, as far as possible.

        Raises:
            UsageError, LabelsError: an option is wrong.
        """
        self.runtime.check()
        if self.choice.image_size not in ("train", "test"):
            pixels(self.choice.image_size)
        if self.temperature is not None:
            _check_temperature(self.temperature)
        if self.class_names is not None:
            files.check_exists(self.class_names)

    @property
    def _graph_engine(self) -> EngineSpec:
        """The engine that runs the compiled graph."""
        return graph_engine(self.runtime.engine, self.runtime.precision)

    @property
    def _asks_for_graph(self) -> bool:
        """Whether the user names an engine that runs compiled graphs."""
        return self.runtime.engine == self._graph_engine.name

    def _why_network(self) -> str | None:
        """Return why timm's network must run, not a compiled graph, judging by options and machine; else None."""
        if self.runtime.engine == network_engine(self.runtime.engine).name:
            return "it was asked for"
        if self.runtime.precision not in self._graph_engine.precisions:
            return f"the precision is {self.runtime.precision}"
        if self.wanted.layer not in _COMPILED_LAYERS:
            return f"a compiled model has no {self.wanted.layer}"
        needs_no_gpu = self.runtime.single or self._why_graph() or not gpu_is_likely()
        if self.runtime.device == "cpu" or (self.runtime.device == "auto" and needs_no_gpu):
            return None
        _import_numpy()
        device = choose_device(self.runtime.device)
        return None if device.type in self._graph_engine.devices else f"the device is {device}"

    def _why_graph(self) -> str | None:
        """Return why only a compiled graph can run; else None."""
        name, precision = self._graph_engine.name, self.runtime.precision
        if self.model.is_exported:
            return f"an exported file runs on the {name} engine"
        return None if precision in network_engine().precisions else f"{precision} runs on the {name} engine"

    def _no_graph(self, kind: type[ResnetdError], reason: str) -> ResnetdError:
        message = f"{self.model} cannot run on the {self._graph_engine.name} engine: {reason}"
        return kind(message, reason=Reason.NOT_ON_ONNX)

    def _no_int8(self) -> ModelError:
        message, reason = f"there is no int8 form of {self.model} on this machine", Reason.NO_INT8
        if self.choice.weights is None:
            return ModelError(message, reason=reason, details=(shell_word(self.model.text),))
        details = shell_word(self.model.text), shell_word(self.choice.weights)
        return ModelError(message, reason=Reason.NO_INT8_OF_WEIGHTS, details=details)

    def _load_exported(self) -> Classifier:
        if self.choice.weights is not None:
            raise UsageError(f"{self.model} contains its own weights", reason=Reason.WEIGHTS_INSIDE)
        key = BundleKey(self.choice)
        bundle = bundles.find(key)
        if bundle is None:
            card = self._exported_card()
            try:
                bundle = build.import_file(key, card)
            except CacheError as error:
                self.note(error.message)
                bundle = build.describe_file(key, card)
        if self.runtime.precision != FP32 and graph_precision(self.runtime.precision) != bundle.card.precision:
            raise UsageError(
                f"{self.model} is in {bundle.card.precision}", hint=f"export one in {self.runtime.precision}"
            )
        try:
            return self._load_compiled(bundle, why="it is an exported file")
        except DamagedBundleError as error:
            bundles.discard(bundle)
            raise ModelError(f"{self.model} cannot be loaded: {error}", hint="export it again") from error

    def _exported_card(self) -> Card:
        """Return the card of an exported file, for the requested image size."""
        card = exported_file.read_card(Path(self.model.resolved.location))
        if card.temperature != 1:
            own = FittedTemperature.at(card.temperature, card.preprocessing, card.precision)
            card = replace(card, temperature=1.0, temperatures=with_temperature(card.temperatures, own))
        if self.choice.image_size == "train":
            return card
        if self.choice.image_size == "test":
            raise UsageError(f"{self.model} has no test size", reason=Reason.NO_TEST_SIZE)
        side = pixels(self.choice.image_size)
        own_size = card.preprocessing.input_size
        if own_size != (3, side, side) and not card.any_size:
            message = f"{self.model} takes images of {own_size[1]} x {own_size[2]} pixels and no others"
            raise UsageError(message, reason=Reason.FIXED_SIZE, details=(side,))
        return replace(card, preprocessing=replace(card.preprocessing, input_size=(3, side, side)))

    def _load_compiled(self, bundle: Bundle, why: str = "it is compiled") -> Classifier:
        engine = open_engine(bundle, self._graph_engine, self._engine_options)
        return self._classifier(bundle.card, engine, why)

    def _plain_network(self) -> PlainNetwork | None:
        # Compiled models need none of this, and start faster without it.
        from resnetd_cli.models import plain_network

        return plain_network.load_plain(self.choice, self.downloads)

    def _load_plain(self, network: PlainNetwork) -> Classifier:
        from resnetd_cli.compiled.bind import open_bound

        takes_bound = self._graph_engine.takes_optimised
        try:
            bundle, engine = self._compile_plain(network)
        except CacheError as error:
            if not takes_bound:
                raise self._no_graph(ModelError, "the compiled model cannot be kept") from error
            self.note(error.message)
            return self._classifier(network, open_bound(network, self._engine_options), "it is compiled")
        if takes_bound and self.runtime.single:
            return self._classifier(bundle.card, engine, "it is compiled")
        del engine  # its weights are mapped from a file that may change during a long run
        return self._load_compiled(bundle)

    def _compile_plain(self, network: PlainNetwork) -> tuple[Bundle, OnnxEngine]:
        from resnetd_cli.compiled.bind import compile_plain

        bundles.check_cache()
        self.note(f"compiling {network.name} once, so that later starts are faster")
        return compile_plain(self.bundle_key, network, self._engine_options)

    def _load_network(self, reason: str | None) -> Classifier:
        network = self._network()
        if network.misfit is not None:
            if self.wanted.logits:
                raise network.misfit
            # Features need no class names, but a compiled model must also serve predictions.
            reason = reason or network.misfit.message

        def compile_if_possible() -> Bundle | None:
            try:
                bundle = self._compile(network)
            except CacheError as error:
                self.note(error.message)
                return None
            if bundle.failure:
                self.note(f"{network.name} runs on the {network_engine().name} engine: {bundle.failure}")
            return bundle

        # Compile even for a single image: the last digits of results depend on the engine.
        if reason is None and (bundle := compile_if_possible()):
            reason = bundle.failure
            if reason is None:
                return self._load_compiled(bundle)
        if self._asks_for_graph:
            raise self._no_graph(ModelError, reason or "the compiled model cannot be kept")
        engine: Engine = network_engine(self.runtime.engine).build(network.module, self._engine_options)
        return self._classifier(network, engine, reason or "it is not compiled yet")

    def _network(self) -> Network:
        current_folder()  # without one, torch's libraries abort the process
        name_temporary_folder()
        name_user()
        _import_numpy()
        ref = self.model.resolved
        if ref.former:
            self.note(f"timm now calls {ref.former} {ref.name}")
        return load_network(self.choice, self.downloads)

    def _compile(self, network: Network) -> Bundle:
        bundles.check_cache()
        self.note(f"compiling {network.name} once, so that later starts are faster")
        return build.compile_network(self.bundle_key, network)

    def _classifier(self, model: Card | Network | PlainNetwork, engine: Engine, why: str) -> Classifier:
        if (self.wanted.logits or self.wanted.layer == LAYER_LOGITS) and not engine.classes:
            raise ModelError(f"{model.name} has no classifier, only features", hint="resnetd features writes them")
        own_names = self.class_names and files.load(self.class_names, engine.classes)
        return Classifier(
            name=model.name,
            engine=engine,
            preprocessing=model.preprocessing,
            class_names=own_names or model.class_names,
            temperature=self.temperature_of(model),
            precision=_precision(model, self.runtime.precision),
            inputs=self.inputs,
            parallelism=self.runtime.parallelism(engine.batch_size),
            why=why,
        )

    def temperature_of(self, model: Card | Network | PlainNetwork) -> float:
        """Return the divisor of the logits; note if temperatures are stored only for other sizes or precisions."""
        if self.temperature is not None:
            return self.temperature
        if isinstance(model, Card) and self.model.is_exported and not model.temperatures:
            return model.temperature
        how = FittedTemperature.at(1.0, model.preprocessing, _precision(model, self.runtime.precision))
        own = model.temperatures if self.choice.weights is None else ()
        found = fitting(own, model.preprocessing, how.precision)
        if found is None and self.wanted.logits and (others := self._stored(model)):
            self.note(self._no_temperature(how, others))
        return 1.0 if found is None else found

    def _stored(self, model: Card | Network | PlainNetwork) -> tuple[FittedTemperature, ...]:
        """Return all temperatures stored with the MODEL, also if other weights replace its own."""
        folder = self.model.path
        if self.choice.weights is None or folder is None or not (folder / config_json.NAME).is_file():
            return model.temperatures
        return config_json.read_temperatures(self.model.text, folder)

    def _no_temperature(self, how: FittedTemperature, others: Sequence[FittedTemperature]) -> str:
        options = {
            "--weights": self.choice.weights,
            "--image-size": self.choice.image_size,
            "--precision": self.runtime.precision,
        }
        words = [
            f"{option} {shell_word(str(value))}"
            for option, value in options.items()
            if value not in (None, "train", FP32)
        ]
        command = " ".join(["evaluate DIR --model", shell_word(self.model.text), *words, "--fit-temperature"])
        if self.choice.weights is not None:
            return f"no temperature of {self.model} is used with other weights: {command} fits one"
        exact = how.size_and_precision in [each.size_and_precision for each in others]
        known = " and ".join(each.in_words(exact=exact) for each in others)
        why = f"{self.model} has a temperature for {known}, not for {how.in_words(exact=exact)}"
        return f"{why}: no temperature is used; {command} fits one"


def _precision(model: Card | Network | PlainNetwork, asked: str) -> str:
    return model.precision if isinstance(model, Card) and asked != BF16 else asked


def _check_temperature(value: float) -> None:
    try:
        check_temperature(value)
    except ValueError as error:
        message = f"{value:g} is not a temperature from {LEAST_TEMPERATURE:g} to {MOST_TEMPERATURE:g}"
        raise UsageError(message, hint="1 leaves the logits as they are") from error


def _import_numpy() -> None:
    """Import numpy before torch, whose C start-up would import it and swallow an interrupt."""
    import numpy as np  # noqa: F401
