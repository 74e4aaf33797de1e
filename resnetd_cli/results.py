"""What the library gives back: frozen records, and their form in JSON."""

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
"""Pixels: of `--image-size`, and of the input of any model."""
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 100.0
"""Beyond these, answers are all certain, or all the same."""
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its images, in timm's terms.

    Attributes:
        input_size: channels, height and width in pixels.
        crop_pct: share of the resized image that the crop keeps.
        crop_mode: `center`, `squash` or `border`.
        interpolation: `bilinear`, `bicubic`, `nearest`, `lanczos`, `box` or `hamming`.
        mean: per channel, on the 0 to 1 scale.
        std: per channel, on the 0 to 1 scale.

    Raises:
        ValueError: one of them makes no sense.
    """

    input_size: tuple[int, int, int]
    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Preprocessing:
        """Return what `dataclasses.asdict` and JSON made a record of.

        Raises:
            ValueError, TypeError: it is something else.
        """
        fields: dict[str, Any] = {}
        for key, value in record.items():
            fields[key] = tuple(value) if isinstance(value, list) else value
        return cls(**fields)

    def __post_init__(self) -> None:
        # They come from files of all kinds, so their types are checked too.
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
        index: of the class.
        id: its WordNet id, if it has one.
        label: its name, which another class may have too.
        probability: 0 to 1.
        sense: what tells it from other classes of this name; None where its name does.
    """

    rank: int
    index: int
    id: str | None
    label: str
    probability: float
    sense: str | None = None

    @property
    def title(self) -> str:
        """The name that people see: `crane (bird)` where two classes are called crane."""
        return titled(self.label, self.sense)

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        record = asdict(self)
        del record["sense"]
        return record


@dataclass(frozen=True)
class Classified:
    """The answer for one image. `embedding`: float32, shape (D,), where asked for. No predictions: it abstains."""

    input: str
    model: str
    predictions: tuple[Prediction, ...]
    embedding: NDArray[np.float32] | None = None

    @property
    def abstained(self) -> bool:
        """Whether no class was as probable as was asked for."""
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
    """The features of one image: `embedding` is float32, shape (D,)."""

    input: str
    model: str
    embedding: NDArray[np.float32]


@dataclass(frozen=True)
class Failure:
    """Why one input has no answer."""

    input: str
    model: str
    kind: ErrorKind
    message: str
    hint: str | None = None
    reason: Reason | None = None
    details: tuple[object, ...] = ()

    @property
    def advice(self) -> Advice:
        """What helps, to pass on to an error."""
        return {"hint": self.hint, "reason": self.reason, "details": self.details}

    @classmethod
    def of(cls, name: str, model: str, error: InputError) -> Failure:
        """Return the failure that an error makes of an input of this name."""
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
    """How the answers of one form of a model compare with another's, on the same images.

    Attributes:
        images: how many were compared; those that cannot be read are not.
        top1_agreement: share of them whose most probable class is the same, 0 to 1.
        largest_difference: of any probability, over all classes of all images.
        mean_difference: the mean over the images of an image's largest difference, which is over its classes.
        speed_up: how many times faster it answers, from the file to the probabilities.
    """

    images: int
    top1_agreement: float
    largest_difference: float
    mean_difference: float
    speed_up: float


@dataclass(frozen=True)
class FittedTemperature:
    """A temperature, and what it was fitted to: elsewhere it is not the model's.

    Attributes:
        temperature: what logits are divided by before they become probabilities.
        precision: in which the logits were computed.
        input_size: of the images, as in `Preprocessing`; None for the size that the model was trained with.
        crop_pct: likewise.

    Raises:
        ValueError: one of them makes no sense.
    """

    temperature: float
    precision: str = "fp32"
    input_size: tuple[int, int, int] | None = None
    crop_pct: float | None = None

    def __post_init__(self) -> None:
        # They come from files.
        check_temperature(self.temperature)
        if not isinstance(self.precision, str):
            raise _nonsense(f"a temperature of the precision {self.precision!r}")
        if self.input_size is not None and not _are_sizes(self.input_size):
            raise _nonsense(f"a temperature of the input size {self.input_size!r}")
        if self.crop_pct is not None and not _is_number(self.crop_pct):
            raise _nonsense(f"a temperature of the crop_pct {self.crop_pct!r}")

    @property
    def place(self) -> tuple[object, ...]:
        """What it was fitted to."""
        return self.precision, self.input_size, self.crop_pct

    @property
    def size_and_precision(self) -> tuple[object, ...]:
        """What it was fitted to, but for the crop, which seldom differs."""
        return self.input_size, self.precision

    def in_words(self, *, exact: bool = False) -> str:
        """Return what it was fitted to; with the crop if that has to be exact."""
        size = "the own size" if self.input_size is None else f"{self.input_size[1]} x {self.input_size[2]}"
        return f"{size}{f' (crop {self.crop_pct:g})' if exact else ''} in {self.precision}"

    @classmethod
    def at(cls, temperature: float, how: Preprocessing, precision: str) -> FittedTemperature:
        """Return a temperature of logits that are computed so."""
        return cls(temperature, precision, how.input_size, how.crop_pct)

    def resolved(self, own: Preprocessing) -> FittedTemperature:
        """Return it with the size that the model was trained with, where it has no other."""
        if self.input_size is not None:
            return self
        return replace(self, input_size=own.input_size, crop_pct=own.crop_pct)

    def fits(self, how: Preprocessing, precision: str) -> bool:
        """Tell whether it is of logits that were computed so."""
        return self.place == (precision, how.input_size, how.crop_pct)

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, value: object) -> FittedTemperature:
        """Read what `record` gave.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(value, Mapping) or value.keys() - {field.name for field in fields(cls)}:
            raise _nonsense(f"a temperature that is {value!r}")
        size = value.get("input_size")
        if "temperature" not in value:
            raise _nonsense(f"no temperature in {value!r}")
        return cls(**{**value, "input_size": tuple(size) if isinstance(size, list) else size})


def fitting(stored: Iterable[FittedTemperature], how: Preprocessing, precision: str) -> float | None:
    """Return the temperature of logits that are computed so, the last one of several; None where there is none."""
    found = [each.temperature for each in stored if each.fits(how, precision)]
    return found[-1] if found else None


def with_temperature(stored: Iterable[FittedTemperature], new: FittedTemperature) -> tuple[FittedTemperature, ...]:
    """Return what is stored, with another in place of one that was fitted to the same."""
    return *(each for each in stored if each.place != new.place), new


def check_temperature(value: object) -> float:
    """Return what logits are divided by before they become probabilities, having made sure that it can be that.

    Raises:
        ValueError: it is not a number, or not a sensible one.
    """
    if not isinstance(value, (int, float)) or not _is_number(value):
        raise _nonsense(f"the temperature {value!r}, which is not a number")
    if not LEAST_TEMPERATURE <= value <= MOST_TEMPERATURE:
        raise _nonsense(f"the temperature {value!r}, not one from {LEAST_TEMPERATURE:g} to {MOST_TEMPERATURE:g}")
    return float(value)


def _nonsense(what: str) -> ValueError:
    return ValueError(shortened(what))


def _is_number(value: object) -> bool:
    # Not math.isfinite, for which an integer can be too large.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _are_numbers(values: object) -> bool:
    return isinstance(values, tuple) and len(values) == 3 and all(map(_is_number, values))


def _are_sizes(values: object) -> bool:
    if not isinstance(values, tuple) or len(values) != 3:
        return False
    return all(isinstance(value, int) and _is_number(value) and 0 < value <= LARGEST_SIDE for value in values)


def titled(name: str, sense: str | None) -> str:
    """Return a class's name, with what tells it from other classes of this name, if anything has to."""
    return f"{name} ({sense})" if sense else name


def shortest(value: np.float32) -> float:
    """Return the float whose text is the shortest that still means this float32.

    JSON and TSV print a float32 as the 17 digits of its float64; eight or nine say the same.
    """
    return float(str(value))
