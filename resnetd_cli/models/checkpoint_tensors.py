"""Find the network's tensors in a checkpoint: strip prefixes, and prefer the averaged (EMA) copy.

Training scripts save a network together with other things: under a key (`{"net": ...}`), inside a module
(`model.`, `backbone.module.`), next to an averaged copy, a loss with class weights, counters. The architecture's
own tensor names identify the network, so there is no list of frameworks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import WeightsError
from resnetd_cli.models import other_tools
from resnetd_cli.system.escaping import printable

if TYPE_CHECKING:
    import torch

    from resnetd_cli.models.checkpoints import StateDict
    from resnetd_cli.models.plain_tensors import PlainTensor

    AnyTensor = torch.Tensor | PlainTensor
    Tensors = Mapping[str, AnyTensor]

COUNTER = "num_batches_tracked"
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|avg|averaged?|shadow)(?:$|[._])", re.IGNORECASE)
_AVERAGES = "n_averaged"
"""The counter in torch's own averaged copies."""
_MOST_NAMED = 3
_SAVE_ALONE = "save the network alone: torch.save(model.state_dict(), 'weights.pth')"


@dataclass(frozen=True)
class _Copy:
    """One copy of the network in a state dict: tensors that share a prefix.

    Attributes:
        source: the state dict.
        prefix: the text before the architecture's own names.
        share: share of the architecture's tensors that are present, without the classifier, 0 to 1.
        has_classifier: whether the classifier's tensors are present.
    """

    source: StateDict
    prefix: str
    share: float
    has_classifier: bool

    @property
    def is_averaged(self) -> bool:
        counters = (name for name in self.source.tensors if name.endswith(_AVERAGES))
        return bool(_AVERAGED.search(f"{self.source.path}.{self.prefix}")) or any(
            self.prefix.startswith(name.removesuffix(_AVERAGES)) for name in counters
        )

    @property
    def name(self) -> str:
        return ".".join(filter(None, (self.source.path, self.prefix.rstrip(".")))) or "the file itself"


def _clean_by_timm(tensors: Mapping[str, Any]) -> dict[str, Any]:
    from timm.models import clean_state_dict

    return clean_state_dict(tensors)  # type: ignore[no-any-return]


def fit(
    file: Path,
    found: Sequence[StateDict],
    architecture: str,
    config: Mapping[str, Any],
    outline: Callable[[], Tensors],
    convert: Callable[[Mapping[str, Any]], dict[str, Any]] = _clean_by_timm,
) -> dict[str, Any]:
    """Return a network's tensors under the architecture's own names, as far as these can be recognised.

    Tensors that do not fit, and those that timm converts on loading, are returned unchanged for timm to check.

    Args:
        file: the checkpoint, for errors.
        found: its state dicts, best first.
        architecture: timm's name for the network.
        config: timm's pretrained configuration.
        outline: returns the architecture's tensors, whose values do not matter; called only if names alone do not
            decide.
        convert: returns tensors whose names the architecture does not know, as timm may convert them.

    Raises:
        WeightsError: there are several networks, or weights that the network lacks, or integer weights.
    """
    classifier = _names(config.get("classifier"))
    landmarks = [f"{name}.weight" for name in (*_names(config.get("first_conv")), *classifier)]
    if len(found) == 1 and landmarks and _is_plain(found[0].tensors, landmarks):
        tensors = dict(found[0].tensors)
    else:
        wanted = outline()
        copies = [copy for source in found for copy in _copies(source, wanted, classifier)]
        tensors = _choose(file, copies, architecture, classifier, wanted) if copies else convert(found[0].tensors)
    _check_numbers(file, architecture, tensors)
    return tensors


def _is_plain(tensors: Tensors, landmarks: Sequence[str]) -> bool:
    """Return whether the names are the architecture's own, judged by its first and last layer."""
    return all(name in tensors for name in landmarks) and not any(
        _is_counter(tensor) and not name.endswith(COUNTER) for name, tensor in tensors.items()
    )


def _choose(
    file: Path, copies: Sequence[_Copy], architecture: str, classifier: Sequence[str], wanted: Tensors
) -> dict[str, Any]:
    chosen = _best(file, copies, architecture)
    tensors = dict(chosen.source.tensors)
    own = {
        name.removeprefix(chosen.prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(chosen.prefix)
    }
    taken = tuple(copy.prefix for copy in copies if copy.source is chosen.source and copy.share == 1)
    beside = {name: tensor for name, tensor in tensors.items() if not name.startswith((*taken, chosen.prefix))}
    matrices = {name: tensor for name, tensor in beside.items() if sum(side > 1 for side in tensor.shape) > 1}
    if not chosen.has_classifier:
        own |= _classifier_beside(beside, matrices, classifier)
    if matrices:
        tool = other_tools.tool_of_tensors(tensors)
        raise WeightsError(
            f"{file} has weights that no {architecture} has, beside those under {printable(chosen.prefix)!r}: "
            f"{_listed(matrices)}",
            hint=f"its tensors are named as in {tool}; {_SAVE_ALONE}" if tool else _SAVE_ALONE,
        )
    # Counters of other tools: how many copies were averaged, how many operations a layer takes.
    return {name: tensor for name, tensor in own.items() if name in wanted or not _is_counter(tensor)}


def _best(file: Path, copies: Sequence[_Copy], architecture: str) -> _Copy:
    """Return the most complete copy; among equals prefer an averaged one, then the most usual name."""
    most = max((copy.share, copy.has_classifier) for copy in copies)
    best = [copy for copy in copies if (copy.share, copy.has_classifier) == most]
    best = [copy for copy in best if copy.is_averaged] or best
    rank = min(copy.source.rank for copy in best)
    best = [copy for copy in best if copy.source.rank == rank]
    if len(best) > 1 and best[0].share == 1:
        names = " and ".join(printable(copy.name) for copy in best[:_MOST_NAMED])
        raise WeightsError(f"{file} holds more than one {architecture}: {names}", hint=_save_one(file, best))
    return best[0]


def _save_one(file: Path, copies: Sequence[_Copy]) -> str:
    """Return a hint that shows how to save one of several networks on its own."""
    path = copies[-1].source.path
    if len({copy.source.path for copy in copies}) < len(copies) or not re.fullmatch(r"\w+", path):
        return _SAVE_ALONE
    return f"save the one you want: torch.save(torch.load({file.name!r})[{path!r}], 'weights.pth')"


def _copies(source: StateDict, wanted: Tensors, classifier: Sequence[str]) -> list[_Copy]:
    """Return the copies of the network in a state dict: each prefix that has at least half of its tensors."""
    head = {f"{name}.{kind}" for name in classifier for kind in ("weight", "bias")} & set(wanted)
    body = {name for name, tensor in wanted.items() if not _is_counter(tensor)} - head
    votes: Counter[str] = Counter()
    for name in source.tensors:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in body:
                votes["".join(f"{part}." for part in parts[:start])] += 1
    return [
        _Copy(source, prefix, count / len(body), all(prefix + name in source.tensors for name in head))
        for prefix, count in votes.items()
        if 2 * count >= len(body)
    ]


def _classifier_beside(beside: Tensors, matrices: dict[str, Any], classifier: Sequence[str]) -> dict[str, Any]:
    """Return the classifier's tensors if they are under another prefix, such as mmpretrain's `head.fc`.

    They must be the only weights besides the network's; they are removed from `matrices`.
    """
    for layer in classifier:
        ending = f".{layer}.weight"
        if len(matrices) == 1 and (name := next(iter(matrices))).endswith(ending):
            del matrices[name]
            bias = f"{name.removesuffix('weight')}bias"
            own = {f"{layer}.weight": beside[name]}
            return own | ({f"{layer}.bias": beside[bias]} if bias in beside else {})
    return {}


def _check_numbers(file: Path, architecture: str, tensors: Mapping[str, Any]) -> None:
    for name, tensor in tensors.items():
        if name.endswith((".weight", ".bias")) and not tensor.is_floating_point():
            raise WeightsError(
                f"{file} does not fit {architecture}: {printable(name)[:80]} holds {_kind(tensor)}, not "
                "floating-point numbers",
                hint="quantised weights are not supported: use the weights they were quantised from",
            )


def _kind(tensor: AnyTensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _is_counter(tensor: AnyTensor) -> bool:
    return tensor.numel() <= 1 and tensor.ndim <= 1


def _names(names: object) -> tuple[str, ...]:
    if isinstance(names, str):
        return (names,)
    return tuple(names) if isinstance(names, (list, tuple)) else ()


def _listed(tensors: Tensors) -> str:
    shown = [
        f"{printable(name)[:80]} ({' x '.join(map(str, tensor.shape))})"
        for name, tensor in list(tensors.items())[:_MOST_NAMED]
    ]
    more = len(tensors) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
