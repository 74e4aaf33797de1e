"""The card in a bundle or an exported file: the graph's preprocessing, class names, origin and temperatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.results import Agreement, FittedTemperature, Preprocessing, check_temperature, fitting

FORMAT = 1
_MOST = 1e18
"""More parameters than any model has."""


@dataclass(frozen=True)
class GraphOrigin:
    """What a graph was made from.

    Attributes:
        parameters: how many numbers the network has learnt.
        weights_sha256: of the file of its weights.
        versions: of resnetd, timm and torch when it was compiled.
        calibration_images: how many images set the ranges of an int8 graph's activations.
    """

    parameters: int
    weights_sha256: str
    versions: dict[str, str]
    calibration_images: int = 0


_ORIGIN_KEYS = ("parameters", "weights_sha256", "versions", "calibration_images")


@dataclass(frozen=True)
class Card:
    """All that is needed to run a graph and to tell where it came from.

    Attributes:
        name: the full name of the model.
        preprocessing: how the model wants its images.
        class_names: the names of its classes; empty for a model without a classifier.
        origin: what it was made from.
        precision: `fp32` or `int8`.
        agreement: how far it agrees with the form it was made from, if `--verify` measured that.
        any_size: the graph takes images of any height and width, not only those of `preprocessing`.
        temperature: of an exported file, the divisor of its logits for images of the size in `preprocessing`.
        temperatures: of a compiled model, by size and precision; of an exported file, those of other sizes. See
            `own_temperature`.
    """

    name: str
    preprocessing: Preprocessing
    class_names: ClassNames
    origin: GraphOrigin
    precision: str = "fp32"
    agreement: Agreement | None = None
    any_size: bool = False
    temperature: float = 1.0
    temperatures: tuple[FittedTemperature, ...] = ()

    @property
    def own_temperature(self) -> float:
        """The divisor of its logits."""
        return fitting(self.temperatures, self.preprocessing, self.precision) or self.temperature

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        fields = {"format": FORMAT, **asdict(self), "temperatures": [each.record() for each in self.temperatures]}
        fields |= fields.pop("origin")  # the keys of an origin are among those of the card
        if not self.temperatures:  # in exported files, which earlier versions read
            del fields["temperatures"]
        return fields

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Card:
        """Read what `to_json` gave.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: it is not a card, or of another format.
        """
        fields = dict(value)
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        how, names, agreement = (fields.pop(key) for key in ("preprocessing", "class_names", "agreement"))
        temperatures = tuple(map(FittedTemperature.of, fields.pop("temperatures", ())))
        origin = GraphOrigin(**{key: fields.pop(key) for key in _ORIGIN_KEYS if key in fields})
        card = cls(
            preprocessing=Preprocessing.of(how),
            class_names=ClassNames(tuple(names["names"]), tuple(names["ids"]), names["source"]),
            origin=origin,
            agreement=agreement and Agreement(**agreement),
            temperatures=temperatures,
            **fields,
        )
        card._check()
        return card

    def _check(self) -> None:
        """Check the types, as a card comes from a file."""
        check_temperature(self.temperature)
        names = self.class_names
        figures = asdict(self.agreement).values() if self.agreement else ()
        numbers = (self.origin.parameters, self.origin.calibration_images, *figures)
        texts = (self.name, self.origin.weights_sha256, names.source, *names.names, *self.origin.versions.values())
        checks = {
            "something that is no text": all(isinstance(text, str) for text in texts),
            "an id that is no text": all(id is None or isinstance(id, str) for id in names.ids),
            f"{len(names.ids)} ids of {len(names)} classes": len(names.ids) == len(names),
            "something that is no number": all(
                isinstance(number, (int, float)) and 0 <= number < _MOST for number in numbers
            ),
            f"any_size {self.any_size!r}": isinstance(self.any_size, bool),
            f"the precision {self.precision!r}": self.precision in ("fp32", "int8"),
        }
        for what, is_right in checks.items():
            if not is_right:
                raise ValueError(what)
