"""Describe models for `info` and `list-models`: size, accuracy, preprocessing, licence, engine, BibTeX."""

from __future__ import annotations

import os
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from resnetd_cli.compiled import bundles, exported_file
from resnetd_cli.compiled.bundles import BundleKey
from resnetd_cli.compiled.card import Card
from resnetd_cli.errors import UsageError
from resnetd_cli.models import checkpoints, complexity, embedded, hub, names, table
from resnetd_cli.models.names import Kind, ModelChoice, ModelRef, ResolvedModel
from resnetd_cli.models.network import define, hub_id, with_weights
from resnetd_cli.models.plain_network import define_plain
from resnetd_cli.models.table import TableEntry
from resnetd_cli.pipeline.engines.base import FP32, INT8
from resnetd_cli.pipeline.engines.table import graph_engine, network_engine
from resnetd_cli.results import Agreement, Preprocessing, fitting

Facts = dict[str, Any]
"""Facts by name, in display order; None if unknown."""

_FLOAT32_BYTES = 4
_OF_WEIGHTS = ("top1", "top5", "test_top1", "test_top5")
"""Facts about the published weights, not about the architecture."""
_DIGITS = 7
_BLOCKS = {
    "basic": "basic blocks of two 3x3 convolutions",
    "bottleneck": "bottleneck blocks of a 1x1, a 3x3 and a 1x1 convolution",
}
_TWEAK = (
    "Where the resolution halves, a plain ResNet's shortcut is a 1x1 convolution of stride 2, which never "
    "looks at three quarters of its input. The D tweak averages 2x2 pixels first and lets the convolution "
    "step by 1, so everything is seen, at almost no cost. The stem is three 3x3 convolutions, not one 7x7."
)
_TWEAK_B = " In the main path the stride sits in the 3x3 convolution, not in the 1x1 before it."

_BIBTEX_RESNETD = """\
@inproceedings{he2019bag,
  title     = {Bag of Tricks for Image Classification with Convolutional Neural Networks},
  author    = {He, Tong and Zhang, Zhi and Zhang, Hang and Zhang, Zhongyue and Xie, Junyuan and Li, Mu},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2019},
  eprint    = {1812.01187},
  archivePrefix = {arXiv}
}
"""
_BIBTEX_EFFICIENTNET = """\
@inproceedings{tan2019efficientnet,
  title     = {EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks},
  author    = {Tan, Mingxing and Le, Quoc V.},
  booktitle = {International Conference on Machine Learning (ICML)},
  year      = {2019},
  eprint    = {1905.11946},
  archivePrefix = {arXiv}
}
"""
_BIBTEX_TIMM = """\
@misc{wightman2019timm,
  title        = {PyTorch Image Models},
  author       = {Wightman, Ross},
  year         = {2019},
  howpublished = {https://github.com/huggingface/pytorch-image-models},
  doi          = {10.5281/zenodo.4414861}
}
"""


def describe(choice: ModelChoice) -> Facts:
    """Return the facts about a model. For the ResNet-D table neither torch nor timm is imported.

    Weights that replace the model's own are read, unless they are compiled already.

    Raises:
        UnknownModel: there is no such model.
        WeightsError: the checkpoint cannot be read.
    """
    ref = choice.model.resolved
    if ref.kind is Kind.EXPORTED:
        return _describe_exported(Path(ref.location))
    facts = _describe_entry(ref.entry) if ref.entry else _describe_timm(choice)
    key = BundleKey(choice)
    if choice.weights is not None:
        facts = _with_weights(facts, choice, choice.weights, is_compiled=bundles.find(key) is not None)
    return facts | _describe_engines(key)


def bibtex(model: ModelRef) -> str:
    """Return the BibTeX entries to cite for a MODEL.

    Raises:
        UsageError: it is an exported file.
    """
    ref = model.resolved
    if ref.kind is Kind.EXPORTED:
        raise UsageError(f"{model} does not say what to cite", hint="name the model that it was exported from")
    if ref.entry:
        return _BIBTEX_RESNETD + "\n" + _BIBTEX_TIMM
    if ref.kind is Kind.EMBEDDED:
        return _BIBTEX_EFFICIENTNET + "\n" + _BIBTEX_TIMM
    return _BIBTEX_TIMM


def agreement_facts(agreement: Agreement | None) -> Facts:
    """Return the figures of an agreement; all are None if it was not measured."""
    if agreement is None:
        return {field.name: None for field in fields(Agreement)}
    return {name: round(value, _DIGITS) for name, value in asdict(agreement).items()}


def list_table(pattern: str) -> list[Facts]:
    """Return the rows of matching models in the table, and whether their weights are on this machine."""
    found = [entry for entry in table.entries() if names.matches(entry.name, pattern)]
    return [{**entry.record, "on_this_machine": hub.cached(entry.hub_id) is not None} for entry in found]


def list_timm(pattern: str) -> list[Facts]:
    """Return facts about matching timm models from timm's configurations, without building the networks."""
    rows = []
    for name, config in names.timm_configs(pattern):
        repo = config.hf_hub_id if config else None
        rows.append(
            {
                "name": name,
                "input_size": config.input_size[1] if config else None,
                "classes": config.num_classes if config else None,
                "license": config.license if config else None,
                "hub_id": repo,
                "on_this_machine": repo is not None and hub.cached(repo) is not None,
            }
        )
    return rows


def _describe_entry(entry: TableEntry) -> Facts:
    depth = entry.architecture.removeprefix("resnet").removesuffix("d")
    stages = " + ".join(map(str, entry.stages))
    words = f"ResNet-D of {depth} layers: {_BLOCKS[entry.block]}, {stages} of them in four stages."
    path = hub.cached(entry.hub_id)
    return {
        "model": entry.name,
        "architecture": words,
        "tweak": _TWEAK + (_TWEAK_B if entry.block == "bottleneck" else ""),
        "classes": 1000,
        "params_m": entry.params_m,
        "gmacs": entry.train.gmacs,
        "gflops": round(2 * entry.train.gmacs, 2),
        **_describe_preprocessing(entry.train.preprocessing),
        "top1": entry.train.top1,
        "top5": entry.train.top5,
        "test_size": entry.test.size,
        "test_crop_pct": entry.test.preprocessing.crop_pct,
        "test_gmacs": entry.test.gmacs,
        "test_top1": entry.test.top1,
        "test_top5": entry.test.top5,
        "temperature": 1.0,
        "temperatures": [],
        "license": entry.license,
        "hub_id": entry.hub_id,
        "file_mb": _file_mb(path, entry.params_m),
        "weights": str(path) if path else None,
    }


def _describe_timm(choice: ModelChoice) -> Facts:
    ref = choice.model.resolved
    definition = define_plain(ModelChoice(choice.model)) or define(ref)
    config, how = definition.config, definition.preprocessing()
    test = definition.preprocessing("test")
    params_m, gmacs = complexity.count(definition)
    repo = hub_id(ref) or config.get("hf_hub_id")
    path = _local_weights(ref, repo)
    return {
        "model": ref.name,
        "architecture": f"timm's {definition.architecture}" + _and(config.get("description")),
        "classes": config.get("num_classes"),
        "params_m": params_m,
        "gmacs": gmacs,
        "gflops": None if gmacs is None else round(2 * gmacs, 2),
        **_describe_preprocessing(how),
        "test_size": test.input_size[1],
        "test_crop_pct": test.crop_pct,
        "temperature": fitting(definition.temperatures, definition.preprocessing(choice.image_size), FP32) or 1.0,
        "temperatures": [each.record() for each in definition.temperatures],
        "license": config.get("license"),
        "hub_id": None if ref.kind is Kind.EMBEDDED else repo,
        "file_mb": _file_mb(path, params_m),
        "weights": str(path) if path else None,
    }


def _with_weights(facts: Facts, choice: ModelChoice, file: Path, *, is_compiled: bool) -> Facts:
    """Return a model's facts when other weights replace its own, so accuracy and licence no longer apply."""
    facts = {name: value for name, value in facts.items() if name not in _OF_WEIGHTS} | {
        "weights": str(file),
        "license": None,
        "hub_id": None,
        "temperature": 1.0,
        "temperatures": [],
    }
    if not is_compiled:
        definition = define_plain(choice) or with_weights(define(choice.model.resolved), file)
        params_m, gmacs = complexity.count(definition)
        facts |= {
            "model": definition.name_with(file),
            "classes": definition.config.get("num_classes"),
            "params_m": params_m,
            "gmacs": gmacs,
            "gflops": None if gmacs is None else round(2 * gmacs, 2),
        }
    return facts | {"file_mb": _file_mb(file, facts["params_m"])}


def _describe_exported(path: Path) -> Facts:
    card = exported_file.read_card(path)
    return {
        **_describe_compiled(card),
        "architecture": f"exported file, {card.precision}",
        "any_size": card.any_size,
        "file_mb": _file_mb(path, 0),
        "weights": str(path),
        "engine": graph_engine().name,
        "engine_why": "it is an exported file",
        **_describe_form(card.precision, card, path),
    }


def _describe_compiled(card: Card) -> Facts:
    """Return the facts that a model's compiled form holds."""
    return {
        "model": card.name,
        "classes": len(card.class_names.names),
        "params_m": round(card.origin.parameters / 1e6, 2),
        **_describe_preprocessing(card.preprocessing),
        "temperature": card.own_temperature,
        "temperatures": [each.record() for each in card.temperatures],
    }


def _describe_preprocessing(how: Preprocessing) -> Facts:
    return {
        "input_size": how.input_size[1],
        "crop_pct": how.crop_pct,
        "crop_mode": how.crop_mode,
        "interpolation": how.interpolation,
        "mean": how.mean,
        "std": how.std,
    }


def _describe_engines(key: BundleKey) -> Facts:
    """Return which engine runs a model on this machine, and why, and facts about its compiled forms."""
    forms = {precision: bundles.find(replace(key, precision=precision)) for precision in (FP32, INT8)}
    bundle = forms[FP32]
    asked = os.environ.get("RESNETD_ENGINE", "")
    engine = network_engine(asked).name
    if asked == engine:
        why = "it was asked for"
    elif bundle is None:
        why = "it is not compiled yet: the first predict or pull does that"
    elif bundle.failure:
        why = bundle.failure
    else:
        engine, why = graph_engine(asked).name, "it is compiled"
    facts: Facts = {"engine": engine, "engine_why": why}
    # With other weights or another size, the compiled form has the exact facts.
    if bundle and key != BundleKey(ModelChoice(key.choice.model)):
        facts |= _describe_compiled(bundle.card)
    for precision, form in forms.items():
        is_there = form is not None and form.failure is None
        facts |= _describe_form(precision, form.card if form else None, form.folder if form and is_there else None)
    return facts


def _describe_form(precision: str, card: Card | None, place: Path | None) -> Facts:
    """Return where one compiled form of a model is, and how it compares: int8 with fp32, fp32 with torch."""
    facts: Facts = {precision: str(place) if place else None}
    if precision == INT8:
        facts["int8_calibration_images"] = card.origin.calibration_images if card else None
    compared = agreement_facts(card.agreement if card else None)
    return facts | {f"{precision}_{key}": value for key, value in compared.items()}


def _local_weights(ref: ResolvedModel, repo: str | None) -> Path | None:
    if ref.kind is Kind.EMBEDDED:
        return embedded.weights_file()
    if ref.kind is Kind.FOLDER:
        return ref.file or checkpoints.find(Path(ref.location))
    return hub.cached(repo) if repo else None


def _file_mb(path: Path | None, params_m: float) -> float:
    """Return the size of the weights in MB: of the file if there is one, else of the parameters in float32."""
    return round(path.stat().st_size / 1e6 if path else params_m * _FLOAT32_BYTES, 1)


def _and(text: str | None) -> str:
    return f": {text}" if text else ""
