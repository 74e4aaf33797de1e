"""The Python API for a loaded model: `Classifier.predict`, `probabilities`, `logits` and `embed`."""

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
"""One input or many: paths, globs or URLs, as on the command line, or `Source` objects."""


@dataclass(frozen=True)
class Classifier:
    """A loaded model.

    Attributes:
        name: the model's full name, as in records.
        engine: the engine that runs the network.
        preprocessing: how images are prepared for the network.
        class_names: the names of its classes.
        temperature: the logits are divided by it before the softmax.
        precision: the engine's precision: `fp32`, `int8`, `fp16` or `bf16`.
        inputs: how inputs are read and decoded.
        parallelism: how much runs at once.
        why: the reason for this engine, in a few words.
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
            top_k: number of classes in each result.
            min_probability: leave out classes below it; a result without classes is an abstention.
            embeddings: add the embedding to each result; the model must have been loaded with a layer.

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
        """Yield the probabilities of all classes for each input, in order: float32, shape (C,)."""

        def finish(
            name: str, logits: NDArray[np.float32] | None, features: NDArray[np.float32] | None
        ) -> NDArray[np.float32]:
            assert logits is not None
            return postprocess.probabilities(logits, self.temperature)

        return self._run(inputs, finish)

    def logits(
        self, inputs: Inputs, *, decoded: Callable[[Image.Image], object] = lambda image: None
    ) -> Iterator[NDArray[np.float32] | Failure]:
        """Yield the logits of all classes for each input, in order, without temperature: float32, shape (C,).

        Args:
            inputs: as on the command line.
            decoded: as in `Pipeline`.
        """

        def finish(
            name: str, logits: NDArray[np.float32] | None, features: NDArray[np.float32] | None
        ) -> NDArray[np.float32]:
            assert logits is not None
            return logits

        return self._run(inputs, finish, decoded=decoded)

    def embed(self, inputs: Inputs) -> Iterator[Embedded | Failure]:
        """Yield the embedding of each input, in order, from the layer the model was loaded with."""

        def finish(
            name: str, logits: NDArray[np.float32] | None, features: NDArray[np.float32] | None
        ) -> Embedded:
            if features is None:
                raise ModelError("the model was loaded without features", hint='load it with layer="pooled"')
            return Embedded(name, self.name, features)

        return self._run(inputs, finish)

    def feature_width(self) -> int:
        """Return the width D of an embedding, by running the network once."""
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
