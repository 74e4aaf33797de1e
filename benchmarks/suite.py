"""The benchmarks, by name: who competes in each, and which figures follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.material import IMAGES, Material, contender, python, resnetd
from benchmarks.measure import Benchmark, Figure, Round, speedup, sustained

MODEL = "resnet50d"
EMBEDDED = "tf_efficientnet_lite0"
"""What timm calls the network of `embedded`."""
INT8 = ("--precision", "int8")
_TURNS = 4
TRAINING_BATCH = 8


def one_image(material: Material, int8: bool) -> Benchmark:
    """One image, once the model is compiled, against the plain recipe."""
    image, weights = material.images()[0], material.weights(MODEL)
    model = ("-m", MODEL, "--weights", weights)
    material.compiled(model)
    return Benchmark(
        {"recipe": contender("recipe", MODEL, weights, image), "resnetd": resnetd("predict", image, *model)},
        [Figure("one image, whole process: resnetd over the plain recipe", speedup("resnetd", "recipe"), 8)],
    )


def help_(material: Material, int8: bool) -> Benchmark:
    """`--help` against the least that any command line made with Typer takes."""
    return Benchmark(
        {"import typer": python("-c", "import typer"), "resnetd --help": resnetd("--help")},
        [Figure("time of --help, in times of import typer", _longer("resnetd --help", "import typer"), 2, True)],
    )


def many_images(material: Material, int8: bool) -> Benchmark:
    """200 images in one process against a DataLoader loop."""
    images, weights = material.list_of(IMAGES), material.weights(MODEL)
    model = ("-m", MODEL, "--weights", weights)
    material.compiled(model)
    predict = resnetd("predict", "--files-from", images, *model)
    contenders = {
        "loop": contender("loader", MODEL, weights, images),
        "loop, channels last": contender("loader", MODEL, weights, images, "channels-last"),
        "resnetd": predict,
    }
    figures = [
        Figure(f"{IMAGES} images: resnetd over the loop", speedup("resnetd", "loop"), 4),
        Figure(
            f"{IMAGES} images: resnetd over the channels-last loop",
            speedup("resnetd", "loop, channels last"),
            2.5,
        ),
    ]
    if int8:
        material.calibrated(MODEL, "--weights", weights)
        contenders["resnetd int8"] = [*predict, *INT8]
        figures += [
            Figure(f"{IMAGES} images: int8 over the loop", speedup("resnetd int8", "loop"), 10),
            Figure(f"{IMAGES} images: int8 over fp32", speedup("resnetd int8", "resnetd"), 2.2),
        ]
    return Benchmark(contenders, figures)


def limit(material: Material, int8: bool) -> Benchmark:
    """Images a second under way against what the processor's multiplying and adding allows."""
    weights = material.weights(MODEL)
    material.compiled(("-m", MODEL, "--weights", weights))
    flops = material.gflops(MODEL) * 1e9

    def share(round_: Round) -> float:
        rates: dict[str, list[float]] = json.loads(round_["limit"].output)
        limits = max(rates["numpy"], rates["torch"], key=median)
        return median(100 * rate * flops / limit for rate, limit in zip(rates["resnetd"], limits, strict=True))

    return Benchmark(
        {"limit": contender("limit", MODEL, weights, material.list_of(IMAGES), str(_TURNS))},
        [Figure("images a second from JPEG, of the matrix-product limit", share, 85, unit="%")],
    )


def embedded(material: Material, int8: bool) -> Benchmark:
    """The model that comes with the install, against a DataLoader loop with the same network."""
    counts = (100, 400)
    model = ("-m", "embedded")
    material.compiled(model)
    contenders = {
        **{
            f"loop, {count} images": contender(
                "loader", EMBEDDED, material.weights(EMBEDDED), material.list_of(count)
            )
            for count in counts
        },
        **_predict("resnetd", material, counts, *model),
    }
    figures = [Figure("embedded, images a second: resnetd over the loop", _faster("resnetd", "loop", counts), 5)]
    if int8:
        material.calibrated("embedded")
        contenders |= _predict("resnetd int8", material, counts, *model, *INT8)
        figures.append(
            Figure("embedded, images a second: int8 over the loop", _faster("resnetd int8", "loop", counts), 8)
        )
    return Benchmark(contenders, figures)


def memory(material: Material, int8: bool) -> Benchmark:
    """Peak memory, which many images may not raise."""
    counts = (IMAGES, 25 * IMAGES)
    model = ("-m", MODEL, "--weights", material.weights(MODEL))
    material.compiled(model)
    few, many = (f"resnetd, {count} images" for count in counts)
    return Benchmark(
        _predict("resnetd", material, counts, *model),
        [
            Figure(f"peak memory of {counts[1]} images", lambda round_: round_[many].peak_mb, 700, True, "MB"),
            Figure(
                f"peak memory of {counts[1]} images, in those of {counts[0]}",
                lambda round_: round_[many].peak_mb / round_[few].peak_mb,
                1.05,
                True,
            ),
        ],
        rounds=1,  # minutes long, and memory hardly varies
    )


def training(material: Material, int8: bool) -> Benchmark:
    """A training step against the same step written plainly, and what loading the images costs it."""

    def times(of: str, over: str) -> Callable[[Round], float]:
        def value(round_: Round) -> float:
            seconds: dict[str, list[float]] = json.loads(round_["training"].output)
            return median(one / other for one, other in zip(seconds[of], seconds[over], strict=True))

        return value

    def loading(round_: Round) -> float:
        figures = json.loads(round_["training"].output)
        return float(figures["loading"] * median(figures["resnetd"]) / TRAINING_BATCH)

    command = contender("training", MODEL, material.list_of(IMAGES), str(TRAINING_BATCH), str(_TURNS))
    return Benchmark(
        {"training": command},
        [
            Figure("time of a training step, in those of timm's", times("resnetd", "plain"), 1.05, True),
            Figure(
                "time of a step from JPEG files, in those from memory", times("from files", "resnetd"), 1.2, True
            ),
            Figure("images a second of the loader, over those that are trained on", loading, 1),
        ],
    )


BENCHMARKS: dict[str, Callable[[Material, bool], Benchmark]] = {
    "one-image": one_image,
    "help": help_,
    "many-images": many_images,
    "limit": limit,
    "embedded": embedded,
    "memory": memory,
    "training": training,
}


def _predict(
    name: str, material: Material, counts: tuple[int, int], *options: str | Path
) -> dict[str, list[str | Path]]:
    """Return resnetd as a contender on each count of images."""
    return {
        f"{name}, {count} images": resnetd("predict", "--files-from", material.list_of(count), *options)
        for count in counts
    }


def _faster(of: str, over: str, counts: tuple[int, int]) -> Callable[[Round], float]:
    return lambda round_: sustained(of, counts)(round_) / sustained(over, counts)(round_)


def _longer(of: str, over: str) -> Callable[[Round], float]:
    return speedup(over, of)
