"""The library's front door: a model ready to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Union

from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.errors import ModelError
from resnetd_cli.pipeline import postprocess
from resnetd_cli.pipeline.engines.base import FP32, Engine
from resnetd_cli.pipeline.options import InputOptions, Parallelism
from resnetd_cli.pipeline.run import Pipeline
from resnetd_cli.pipeline.sources.expand import Source, expand
from resnetd_cli.pipeline.sources.reading import ReadOptions
from resnetd_cli.results import Classified, Embedded, Failure, Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

Input = Union[str, "PathLike[str]", Source]
Inputs = Input | Iterable[Input]
"""What the command line takes, or many of them, or sources."""


@dataclass(frozen=True)
class Classifier:
    """A loaded model.

    Attributes:
        name: the model's full name, as the records carry it.
        engine: what runs the network.
        preprocessing: how the network wants its images.
        class_names: the names of its classes.
        temperature: what logits are divided by before they become probabilities.
        precision: in which the engine computes: `fp32`, `int8`, `fp16` or `bf16`.
        inputs: how inputs are read and decoded.
        parallelism: how much runs at once.
        why: why this engine runs it, in a few words.
    """

    name: str
    engine: Engine
    preprocessing: Preprocessing
    class_names: ClassNames
    temperature: float = 1.0
    precision: str = FP32
    inputs: InputOptions = InputOptions()
    parallelism: Parallelism = Parallelism()
    why: str = ""

    def predict(
        self,
        inputs: Inputs,
        *,
        top_k: int = 5,
        min_probability: float = 0.0,
        embeddings: bool = False,
    ) -> Iterator[Classified | Failure]:
        """Classify each input: paths, folders, globs, URLs, or sources.

        Args:
            inputs: as on the command line.
            top_k: how many classes each answer names.
            min_probability: leave out classes below it; an answer without any abstains.
            embeddings: give each answer its features too; the model must have been loaded with a layer.

        Yields:
            One `Classified` or `Failure` for each image, in order.
        """

        def finish(
            name: str, logits: NDArray[np.float32] | None, features: NDArray[np.float32] | None
        ) -> Classified:
            assert logits is not None
            predictions = postprocess.top_k(logits, self.class_names, top_k, min_probability, self.temperature)
            return Classified(name, self.name, predictions, features if embeddings else None)

        return self._run(inputs, finish)

    def probabilities(self, inputs: Inputs) -> Iterator[NDArray[np.float32] | Failure]:
        """Give the probabilities of all classes for each input, in order: float32, shape (C,)."""

        def finish(
            name: str, logits: NDArray[np.float32] | None, features: NDArray[np.float32] | None
        ) -> NDArray[np.float32]:
            assert logits is not None
            return postprocess.probabilities(logits, self.temperature)

        return self._run(inputs, finish)

    def logits(
        self, inputs: Inputs, *, decoded: Callable[[Image.Image], object] = lambda image: None
    ) -> Iterator[NDArray[np.float32] | Failure]:
        """Give the logits of all classes for each input, in order, as they are: float32, shape (C,).

        Args:
            inputs: as on the command line.
            decoded: as of `Pipeline`.
        """

        def finish(
            name: str, logits: NDArray[np.float32] | None, features: NDArray[np.float32] | None
        ) -> NDArray[np.float32]:
            assert logits is not None
            return logits

        return self._run(inputs, finish, decoded=decoded)

    def embed(self, inputs: Inputs) -> Iterator[Embedded | Failure]:
        """Give the features of each input, in order, of the layer the model was loaded with."""

        def finish(
            name: str, logits: NDArray[np.float32] | None, features: NDArray[np.float32] | None
        ) -> Embedded:
            if features is None:
                raise ModelError("the model was loaded without features", hint='load it with layer="pooled"')
            return Embedded(name, self.name, features)

        return self._run(inputs, finish)

    def feature_width(self) -> int:
        """Return how many features an image has, D, by running the network."""
        import numpy as np

        features = self.engine.run(np.zeros((1, *self.preprocessing.input_size), np.float32)).features
        assert features is not None
        return int(features.shape[1])

    def _run(self, inputs: Inputs, finish: Callable[..., Any], **options: Any) -> Iterator[Any]:
        pipeline = Pipeline(
            engine=self.engine,
            preprocessing=self.preprocessing,
            finish=finish,
            model=self.name,
            inputs=self.inputs,
            parallelism=self.parallelism,
            **options,
        )
        return pipeline.run(_as_sources(inputs, self.inputs.reading))


def _as_sources(inputs: Inputs, options: ReadOptions) -> Iterator[Source]:
    for item in [inputs] if isinstance(inputs, (str, PathLike, Source)) else inputs:
        if isinstance(item, Source):
            yield item
        else:
            yield from expand([fspath(item)], options)
