"""The records that the library returns (predictions, embeddings, failures, ...), and their JSON form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import Advice, ErrorKind, InputError, Reason
from resnetd_cli.system.wording import shortened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


CROP_MODES = ("center", "squash", "border")
LARGEST_SIDE = 8192
"""Largest image size in pixels, for `--image-size` and for any model."""
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 100.0
"""Beyond these, every prediction is certain, or all classes are equally probable."""
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared for a model, in timm's terms.

    Attributes:
        input_size: channels, height and width in pixels.
        crop_pct: fraction of the resized image that the crop keeps.
        crop_mode: `center`, `squash` or `border`.
        interpolation: `bilinear`, `bicubic`, `nearest`, `lanczos`, `box` or `hamming`.
        mean: per channel, on the 0 to 1 scale.
        std: per channel, on the 0 to 1 scale.

    Raises:
        ValueError: a value makes no sense.
    """

    input_size: tuple[int, int, int]
    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing in a record made by `dataclasses.asdict`, possibly read back from JSON.

        Raises:
            ValueError, TypeError: it is not such a record.
        """
        fields: dict[str, Any] = {}
        for key, value in record.items():
            fields[key] = tuple(value) if isinstance(value, list) else value
        return cls(**fields)

    def __post_init__(self) -> None:
        # The values come from untrusted files, so check their types too.
        if not _are_sizes(self.input_size):
            raise _nonsense(f"input size {self.input_size!r}")
        checks = {
            f"{self.input_size[0]} channels, not RGB": self.input_size[0] == 3,
            f"crop_pct {self.crop_pct!r}": _is_number(self.crop_pct) and 0.05 <= self.crop_pct <= 20,
            f"crop_mode {self.crop_mode!r}": self.crop_mode in CROP_MODES,
            f"interpolation {self.interpolation!r}": self.interpolation in INTERPOLATIONS,
            f"mean {self.mean!r}": _are_numbers(self.mean) and all(abs(mean) <= 255 for mean in self.mean),
            f"std {self.std!r}": _are_numbers(self.std) and all(1e-6 <= std <= 1e6 for std in self.std),
        }
        for what, is_right in checks.items():
            if not is_right:
                raise _nonsense(what)


@dataclass(frozen=True)
class Prediction:
    """One class of a top-k list.

    Attributes:
        rank: from 1.
        index: index of the class.
        id: WordNet id of the class, if it has one.
        label: name of the class; several classes may share a name.
        probability: 0 to 1.
        sense: text that distinguishes classes that share a name; None if the name is unique.
    """

    rank: int
    index: int
    id: str | None
    label: str
    probability: float
    sense: str | None = None

    @property
    def title(self) -> str:
        """The name to show to people, such as `crane (bird)`: two classes are called crane."""
        return titled(self.label, self.sense)

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        record = asdict(self)
        del record["sense"]
        return record


@dataclass(frozen=True)
class Classified:
    """The result of one image. No predictions: it abstains. `embedding`: float32, shape (D,), if requested."""

    input: str
    model: str
    predictions: tuple[Prediction, ...]
    embedding: NDArray[np.float32] | None = None

    @property
    def abstained(self) -> bool:
        """Whether no class reached the minimum probability."""
        return not self.predictions

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        record: dict[str, Any] = {
            "input": self.input,
            "status": "ok",
            "model": self.model,
            "predictions": [prediction.record() for prediction in self.predictions],
        }
        if self.abstained:
            record["abstained"] = True
        if self.embedding is not None:
            record["embedding"] = [shortest(value) for value in self.embedding]
        return record


@dataclass(frozen=True)
class Embedded:
    """The embedding of one image: float32, shape (D,)."""

    input: str
    model: str
    embedding: NDArray[np.float32]


@dataclass(frozen=True)
class Failure:
    """Why one input failed."""

    input: str
    model: str
    kind: ErrorKind
    message: str
    hint: str | None = None
    reason: Reason | None = None
    details: tuple[object, ...] = ()

    @property
    def advice(self) -> Advice:
        """Hint, reason and details, as arguments for an error."""
        return {"hint": self.hint, "reason": self.reason, "details": self.details}

    @classmethod
    def of(cls, name: str, model: str, error: InputError) -> Failure:
        """Return the failure of an input, from the error that it raised."""
        return cls(name, model, error.kind, error.message, **error.advice)

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "input": self.input,
            "status": "error",
            "model": self.model,
            "predictions": [],
            "error": {"kind": self.kind.value, "message": self.message},
        }


@dataclass(frozen=True)
class Agreement:
    """How the predictions of two forms of a model compare on the same images.

    Attributes:
        images: number of images compared, without unreadable ones.
        top1_agreement: share of images with the same most probable class, 0 to 1.
        largest_difference: largest difference in probability, over all classes of all images.
        mean_difference: largest difference over an image's classes, averaged over the images.
        speed_up: how many times faster the new form is, from the file to the probabilities.
    """

    images: int
    top1_agreement: float
    largest_difference: float
    mean_difference: float
    speed_up: float


@dataclass(frozen=True)
class FittedTemperature:
    """A temperature, and the image size and precision that it was fitted for; it is valid only there.

    Attributes:
        temperature: the logits are divided by it before the softmax.
        precision: precision in which the logits were computed.
        input_size: as in `Preprocessing`; None for the size that the model was trained with.
        crop_pct: as in `Preprocessing`; None for the crop that the model was trained with.

    Raises:
        ValueError: a value makes no sense.
    """

    temperature: float
    precision: str = "fp32"
    input_size: tuple[int, int, int] | None = None
    crop_pct: float | None = None

    def __post_init__(self) -> None:
        # The values come from untrusted files.
        check_temperature(self.temperature)
        if not isinstance(self.precision, str):
            raise _nonsense(f"a temperature of the precision {self.precision!r}")
        if self.input_size is not None and not _are_sizes(self.input_size):
            raise _nonsense(f"a temperature of the input size {self.input_size!r}")
        if self.crop_pct is not None and not _is_number(self.crop_pct):
            raise _nonsense(f"a temperature of the crop_pct {self.crop_pct!r}")

    @property
    def place(self) -> tuple[object, ...]:
        """The precision, image size and crop that it was fitted for."""
        return self.precision, self.input_size, self.crop_pct

    @property
    def size_and_precision(self) -> tuple[object, ...]:
        """What it was fitted for, without the crop, which seldom differs."""
        return self.input_size, self.precision

    def in_words(self, *, exact: bool = False) -> str:
        """Return what it was fitted for, as text; with the crop if `exact`."""
        size = "its own size" if self.input_size is None else f"{self.input_size[1]} x {self.input_size[2]}"
        return f"{size}{f' (crop {self.crop_pct:g})' if exact else ''} in {self.precision}"

    @classmethod
    def at(cls, temperature: float, how: Preprocessing, precision: str) -> FittedTemperature:
        """Return a temperature for this preprocessing and precision."""
        return cls(temperature, precision, how.input_size, how.crop_pct)

    def resolved(self, own: Preprocessing) -> FittedTemperature:
        """Return it with the model's own size filled in if it has none."""
        if self.input_size is not None:
            return self
        return replace(self, input_size=own.input_size, crop_pct=own.crop_pct)

    def fits(self, how: Preprocessing, precision: str) -> bool:
        """Return whether it was fitted for this preprocessing and precision."""
        return self.place == (precision, how.input_size, how.crop_pct)

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, value: object) -> FittedTemperature:
        """Return the temperature in a record made by `record`.

        Raises:
            ValueError: it is not such a record.
        """
        if not isinstance(value, Mapping) or value.keys() - {field.name for field in fields(cls)}:
            raise _nonsense(f"a temperature that is {value!r}")
        size = value.get("input_size")
        if "temperature" not in value:
            raise _nonsense(f"no temperature in {value!r}")
        return cls(**{**value, "input_size": tuple(size) if isinstance(size, list) else size})


def fitting(stored: Iterable[FittedTemperature], how: Preprocessing, precision: str) -> float | None:
    """Return the last stored temperature for this preprocessing and precision; None if there is none."""
    found = [each.temperature for each in stored if each.fits(how, precision)]
    return found[-1] if found else None


def with_temperature(stored: Iterable[FittedTemperature], new: FittedTemperature) -> tuple[FittedTemperature, ...]:
    """Return the stored temperatures plus a new one, which replaces one fitted for the same."""
    return *(each for each in stored if each.place != new.place), new


def check_temperature(value: object) -> float:
    """Return a temperature after checking that it is a number in range.

    Raises:
        ValueError: it is not a number, or out of range.
    """
    if not isinstance(value, (int, float)) or not _is_number(value):
        raise _nonsense(f"the temperature {value!r}, which is not a number")
    if not LEAST_TEMPERATURE <= value <= MOST_TEMPERATURE:
        raise _nonsense(
            f"the temperature {value!r}, which is not from {LEAST_TEMPERATURE:g} to {MOST_TEMPERATURE:g}"
        )
    return float(value)


def _nonsense(what: str) -> ValueError:
    return ValueError(shortened(what))


def _is_number(value: object) -> bool:
    # Not math.isfinite, which fails on very large integers.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _are_numbers(values: object) -> bool:
    return isinstance(values, tuple) and len(values) == 3 and all(map(_is_number, values))


def _are_sizes(values: object) -> bool:
    if not isinstance(values, tuple) or len(values) != 3:
        return False
    return all(isinstance(value, int) and _is_number(value) and 0 < value <= LARGEST_SIDE for value in values)


def titled(name: str, sense: str | None) -> str:
    """Return a class's name, followed by its sense if several classes share the name."""
    return f"{name} ({sense})" if sense else name


def shortest(value: np.float32) -> float:
    """Return the float whose text is the shortest that still denotes this float32.

    JSON and TSV would print the 17 digits of its float64, although nine suffice.
    """
    return float(str(value))
