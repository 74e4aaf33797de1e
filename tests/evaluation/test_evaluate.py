"""Measuring a model on labelled images: which class is which, what is counted, what two models differ by."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from helpers.scripted_model import ACTUAL, FOLDERS, LOGITS, PETS, draw, imagenet_model, model

from resnetd_cli.class_names import matching, real_labels, shipped
from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import DataError, ErrorKind, InputError, ModelError, UsageError
from resnetd_cli.evaluation import evaluate
from resnetd_cli.evaluation.images import open_images
from resnetd_cli.evaluation.records import RealScores
from resnetd_cli.pipeline.sources.reading import ReadOptions
from resnetd_cli.results import Failure

# --- which class is which ---

IMAGENET = shipped.imagenet()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "found"),
    [
        (["tench", "goldfish", "Samoyed"], [0, 1, 258]),
        (["TENCH", "great_white_shark", "  tiger   cat"], [0, 2, 282]),
        (["Tinca_tinca", "Carassius auratus"], [0, 1]),
        (["tench, Tinca tinca", "Gila monster, Heloderma suspectum"], [0, 45]),
        (["n01692333", "n01440764"], [45, 0]),
        (["n02085620-Chihuahua", "n02085936_Maltese_dog", "n01440764"], [151, 153, 0]),
        (["12", "7", "000"], [12, 7, 0]),
    ],
    ids=["names", "spelling", "synonyms", "lists", "ids", "ids and names", "indices"],
)
def test_classes_are_found_by_one_rule(classes: list[str], found: list[int]) -> None:
    assert matching.match(classes, IMAGENET).indices == found


def test_a_first_name_wins_over_another_classs_synonym() -> None:
    # `cat` is also what WordNet calls other things.
    names = ClassNames(("sofa", "couch, sofa"), (None, None), "a test")
    assert matching.match(["sofa", "couch"], names).indices == [0, 1]


def test_digits_are_matched_as_names_before_indices() -> None:
    names = ClassNames(("1", "0"), (None, None), "a test")
    assert matching.match(["0", "1"], names).indices == [1, 0]


def test_composed_and_decomposed_accents_match() -> None:
    names = ClassNames(("tea", "caf\u00e9"), (None, None), "a test")
    assert matching.match(["cafe\u0301"], names).indices == [1]


def named(*names: str) -> ClassNames:
    return ClassNames(names, (None,) * len(names), "a test")


@pytest.mark.parametrize(
    ("classes", "names", "found"),
    [
        (["Cat", "cat"], ("cat", "Cat"), [1, 0]),
        (["hot_dog"], ("hot dog", "hot_dog"), [1]),
        (["HOT  DOG"], ("cat", "hot_dog"), [1]),
        (["x\u00b2"], ("x2", "x\u00b2"), [1]),
        (["gro\u00df"], ("GROSS", "gro\u00df"), [1]),
    ],
)
def test_an_exact_name_wins_over_other_spellings(
    classes: list[str], names: tuple[str, ...], found: list[int]
) -> None:
    assert matching.match(classes, named(*names)).indices == found


def test_a_spelling_that_fits_two_classes_is_refused() -> None:
    with pytest.raises(DataError, match="CAT is the name of several of the model's classes: 0, 1"):
        matching.match(["CAT"], named("Cat", "cat"))


def test_characters_that_only_look_alike_are_different_names() -> None:
    with pytest.raises(DataError, match="the class is not among"):
        matching.match(["x\u00b2"], named("x2", "y"))


@pytest.mark.parametrize("names", [("1", "2", "3", "4"), ("0.5", "1.0", "1.5"), ("10", "other"), ("-1", "1")])
def test_indices_do_not_match_a_model_whose_classes_are_numbers(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"the class is not among the model's [234]: 0"):
        matching.match(["0"], named(*names))


def test_classes_matched_by_index_are_reported() -> None:
    found = matching.match(["1", "134"], IMAGENET)
    assert found == ([1, 134], True)
    assert not matching.match(["goldfish"], IMAGENET).by_index
    expected = "classes are matched with the model's by index: 1 is goldfish, 134 is crane (bird)"
    assert matching.in_words(["1", "134"], found.indices, IMAGENET) == expected


def test_titles_distinguish_classes_of_the_same_name() -> None:
    assert matching.match(["crane (machine)", "Crane_(bird)"], IMAGENET).indices == [517, 134]


@pytest.mark.parametrize(
    ("classes", "message", "hint"),
    [
        (["tench", "goldfsh"], "1 of the 2 classes is not among the model's 1000: goldfsh", "goldfish"),
        (["n01440764", "n99999999"], "1 of the 2 classes is not among the model's 1000: n99999999", "the model's"),
        (["0", "1000"], "1 of the 2 classes is not among the model's 1000: 1000", "the model's are tench"),
        (
            ["n01440764", "koala"],
            "^the classes are not all named in the same way: n01440764 is an id, koala is a name$",
            "ids and indices work only if all classes use them: call n01440764 'tench'",
        ),
        (
            ["0", "koala", "tench"],
            "^the classes are not all named in the same way: 0 is an index, koala is a name$",
            "ids and indices work only if all classes use them: call 0 'tench'",
        ),
        (["1", "n01440764"], "1 is an index, n01440764 is an id$", "call 1 'goldfish'"),
        (["n01440764", "koala", "qqqqq"], "1 of the 3 classes is not among the model's 1000: qqqqq", "tench"),
        ([f"x{i}" for i in range(9)], "9 of the 9 classes are not .*: x0, x1, x2, x3, x4 and 4 more", "--labels"),
        (["tench", "Tinca tinca"], "tench and Tinca tinca are both the model's class 0", "one folder"),
        (["7", "007"], "7 and 007 are both the model's class 7", "one folder"),
        (["crane"], "crane is the name of several of the model's classes: 134, 517", "ids"),
    ],
)
def test_classes_that_are_not_found_are_named(classes: list[str], message: str, hint: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        matching.match(classes, IMAGENET)
    assert hint in (hint_of(caught.value) or "")


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("goldfsh", ["goldfish"]),
        ("Espreso", ["espresso"]),
        ("hat", ["cowboy hat"]),
        ("dress", []),
        ("dough bread", ["dough"]),
    ],
)
def test_hints_suggest_similar_classes(wrong: str, near: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        matching.match(["tench", wrong], IMAGENET)
    expected = f"near {wrong}: {', '.join(near)}" if near else "the model's are tench, goldfish, "
    assert (hint_of(caught.value) or "").startswith(expected)
    assert (hint_of(caught.value) or "").endswith("; --skip-unknown leaves their images out")


def test_images_of_a_class_that_either_model_lacks_are_left_out(pets: Path) -> None:
    fewer = ClassNames(("dog", "cat"), (None, None), "a test")
    images, (note,) = open_images(str(pets)).known_to([PETS, fewer])
    assert (len(images), images.unknown) == (5, 3)
    assert note == "3 of 8 images are left out, of classes that a model lacks: gila_monster"
    assert images.targets(fewer).tolist() == [1, 1, 1, 0, 0]
    assert open_images(str(pets)).known_to([PETS])[1] == []


# --- one model ---


def test_metrics_equal_scikit_learns(pets: Path) -> None:
    report = evaluate.evaluate(model(), open_images(str(pets))).report
    predicted = LOGITS.argmax(axis=1)
    powers = np.exp(LOGITS.astype(np.float64))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    assert (report.counts.answered, report.counts.failed) == (8, 0)
    assert report.scores.top1 == sklearn.metrics.accuracy_score(ACTUAL, predicted) == 5 / 8
    assert report.scores.top5 is None  # of three classes
    assert report.scores.loss == pytest.approx(sklearn.metrics.log_loss(ACTUAL, probabilities), abs=1e-6)
    macro = sklearn.metrics.precision_recall_fscore_support(ACTUAL, predicted, average="macro")[:3]
    assert (report.scores.macro_precision, report.scores.macro_recall, report.scores.macro_f1) == pytest.approx(
        macro
    )
    assert report.confusion == ((0, 0, 2), (0, 1, 1), (1, 0, 1), (1, 1, 1), (2, 0, 1), (2, 2, 2))
    assert [(row.label, row.support, row.predicted) for row in report.classes] == [
        ("cat", 3, 4),
        ("dog", 2, 2),
        ("Gila monster, Heloderma suspectum", 3, 2),
    ]


def test_the_most_confident_mistakes_come_first(pets: Path) -> None:
    images = open_images(str(pets))
    mistakes = evaluate.evaluate(model(), images).report.mistakes
    assert [(Path(item.image).name, item.actual, item.predicted) for item in mistakes] == [
        ("5.png", PETS.names[2], "cat"),
        ("2.png", "cat", "dog"),
        ("4.png", "dog", "cat"),
    ]
    assert [item.probability for item in mistakes] == pytest.approx([0.98670, 0.66524, 0.42232], abs=1e-5)
    assert len(evaluate.evaluate(model(), images, mistakes=1).report.mistakes) == 1


def test_top5_counts_ties_by_index(tmp_path: Path) -> None:
    logits = np.array([[0, 0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6]], np.float32)
    for blue, folder in [(0, "4"), (0, "5"), (1, "2"), (1, "1")]:
        draw(tmp_path / folder / f"{blue}.png", blue)
    names = shipped.unnamed(7)
    report = evaluate.evaluate(model(logits, names), open_images(str(tmp_path))).report
    assert (report.scores.top1, report.scores.top5) == (0, 0.5)  # 4 of the ties, and 2 of the rising ones


def test_images_that_cannot_be_read_are_counted_separately(pets: Path) -> None:
    (pets / "cat" / "0.png").write_bytes(b"no image")
    failures: list[Failure] = []
    result = evaluate.evaluate(model(), open_images(str(pets)), on_failure=failures.append)
    assert (result.report.counts.answered, result.report.counts.failed, result.report.scores.top1) == (7, 1, 4 / 7)
    assert [Path(failure.input).name for failure in failures] == ["0.png"]
    assert result.verdict.tolist() == [-1, 1, 0, 1, 0, 0, 1, 1]
    assert sum(count for *_, count in result.report.confusion) == 7


def test_no_image_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="0 of 1 image could be read"):
        evaluate.evaluate(model(), open_images(str(tmp_path)))


def test_non_finite_logits_are_an_error(pets: Path) -> None:
    with pytest.raises(ModelError, match="not a number"):
        evaluate.evaluate(model(LOGITS * np.nan), open_images(str(pets)))


def test_the_models_own_temperature_is_used(pets: Path) -> None:
    images = open_images(str(pets))
    plain = evaluate.evaluate(model(LOGITS / 2), images).report
    divided = evaluate.evaluate(model(temperature=2.0), images).report
    expected = [plain.scores.loss, plain.scores.ece, plain.scores.top1]
    assert [divided.scores.loss, divided.scores.ece, divided.scores.top1] == pytest.approx(expected)
    assert divided.model.temperature == 2


def test_a_fit_starts_from_the_raw_logits(pets: Path) -> None:
    images = open_images(str(pets))
    plain = evaluate.evaluate(model(), images).report
    fitted = [evaluate.evaluate(model(temperature=t), images, fit=True).report for t in (1.0, 7.0)]
    assert fitted[0] == fitted[1]
    fit = fitted[0].fit
    assert fit is not None
    assert (fit.loss_before, fit.ece_before) == pytest.approx((plain.scores.loss, plain.scores.ece))
    assert fit.loss < fit.loss_before
    again = evaluate.evaluate(model(temperature=fit.temperature), images).report
    assert (again.scores.loss, again.scores.ece) == pytest.approx((fit.loss, fit.ece))
    assert again.coverage == fitted[0].coverage


# --- splits ---


def layout(top: Path, splits: Mapping[str, Sequence[int]]) -> str:
    for split, blues in splits.items():
        for blue in blues:
            draw(top / split / FOLDERS[ACTUAL[blue]] / f"{blue}.png", blue)
    return str(top)


@pytest.mark.parametrize(
    ("split", "taken", "count"),
    [(None, "test", 1), ("val", "val", 2), ("train", "train", 3), ("all", "all", 6)],
)
def test_the_first_split_of_test_val_all_train_is_the_default(
    tmp_path: Path, split: str | None, taken: str, count: int
) -> None:
    top = layout(tmp_path, {"train": [0, 3, 5], "val": [1, 4], "test": [6]})
    images = open_images(top, split)
    assert (images.split, len(images)) == (taken, count)
    assert [Path(name).name for name in images.names()] == [Path(images.name(at)).name for at in range(count)]
    assert evaluate.evaluate(model(), images).report.counts.answered == count


def test_a_missing_split_is_an_error_that_lists_the_others(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no split test") as caught:
        open_images(layout(tmp_path, {"train": [0, 3], "val": [1]}), "test")
    assert "train" in (hint_of(caught.value) or "")


def test_folders_matched_by_index_are_reported(tmp_path: Path) -> None:
    images = open_images(layout(tmp_path, {"train": [0, 3]}))
    assert evaluate.check(model(), images) is None
    for number, name in enumerate(("cat", "dog", "x")):
        draw(tmp_path / "numbers" / str(number) / f"{name}.png", 0)
    note = evaluate.check(model(), open_images(str(tmp_path / "numbers")))
    assert note == (
        "classes are matched with the model's by index: 0 is cat, 1 is dog, 2 is Gila monster, Heloderma suspectum"
    )


def test_only_classes_in_the_split_must_match_the_model(tmp_path: Path) -> None:
    top = layout(tmp_path, {"train": [0, 3], "test": [1]})
    draw(tmp_path / "train" / "unicorn" / "0.png", 0)
    assert evaluate.evaluate(model(), open_images(top)).report.scores.top1 == 1
    with pytest.raises(DataError, match="unicorn"):
        evaluate.evaluate(model(), open_images(top, "all"))


# --- ImageNet's real labels ---


def test_real_labels_of_images_without_folders(tmp_path: Path) -> None:
    # The first image has no real label, the second and third several: [970, 795] and [230, 231].
    for blue, number in enumerate([1, 2, 3, 2]):
        draw(tmp_path / f"{'copy-of-' * (blue == 3)}ILSVRC2012_val_{number:08}.png", blue)
    draw(tmp_path / "something-else.png", 0)
    images = open_images(str(tmp_path), real=True)
    result = evaluate.evaluate(imagenet_model(1, 795, 5, 970), images, real=True)
    assert result.report.real == RealScores(3, pytest.approx(2 / 3))
    assert (result.report.scores.top1, result.report.scores.loss, result.report.classes) == (None, None, ())
    assert result.report.accuracy == pytest.approx(2 / 3)
    assert result.report.coverage[0].images == 3


@pytest.mark.parametrize("layout", ["tench/1.png", "ILSVRC2012_val_00000001.png"])
def test_image_that_is_read_too_slowly_fails(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / layout, 0)

    def slow_read(descriptor: int, size: int) -> bytes:
        time.sleep(0.05)
        return b"x" * min(size, 10)

    monkeypatch.setattr("resnetd_cli.pipeline.sources.reading.os.read", slow_read)
    images = open_images(str(tmp_path), real="/" not in layout, reading=ReadOptions(timeout=0.1))
    (source,) = images.sources()
    with pytest.raises(InputError) as caught:
        source.read()
    assert (caught.value.kind, caught.value.message) == (ErrorKind.TIMEOUT, "not read in 0.1 seconds")
    assert hint_of(caught.value) == "--timeout raises the limit"


@pytest.mark.slow
def test_real_labels_beside_the_usual_ones(tmp_path: Path) -> None:
    draw(tmp_path / "n09193705" / "ILSVRC2012_val_00000002.JPEG.png", 0)  # 970
    draw(tmp_path / "n02105855" / "ILSVRC2012_val_00000003.png", 1)  # 230
    result = evaluate.evaluate(imagenet_model(795, 230), open_images(str(tmp_path)), real=True)
    assert (result.report.scores.top1, result.report.real) == (0.5, RealScores(2, 1))
    assert result.verdict.tolist() == [1, 0]


@pytest.mark.slow
def test_real_labels_are_timms() -> None:
    from timm.data.real_labels import RealLabelsImagenet

    theirs = RealLabelsImagenet([f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 50_001)]).real_labels
    ours = real_labels.of_images(theirs)
    assert all(set(one) == set(other) for one, other in zip(ours, theirs.values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["ILSVRC2012_val_00050001.png", "ILSVRC2012_val_00000000.png", "val_00000002.png"]
)
def test_other_images_have_no_real_labels(name: str) -> None:
    assert real_labels.of_images(["a/ILSVRC2012_val_00000002.JPEG", name]) == [{970, 795}, frozenset()]
    with pytest.raises(DataError, match="none of the images"):
        real_labels.of_images([name])


def test_real_labels_need_a_model_of_imagenets_classes(pets: Path) -> None:
    with pytest.raises(UsageError, match="ImageNet's 1,000 classes"):
        evaluate.evaluate(model(), open_images(str(pets)), real=True)


def test_a_model_with_a_single_output_is_refused(pets: Path) -> None:
    one = model(np.array([[2.0]], np.float32), ClassNames(("cat",), (None,), "a test"))
    with pytest.raises(UsageError, match="has a single output") as caught:
        evaluate.evaluate(one, open_images(str(pets)))
    assert "--min-probability" in (hint_of(caught.value) or "")


def test_images_without_labels_cannot_fit_temperature(tmp_path: Path) -> None:
    draw(tmp_path / "ILSVRC2012_val_00000002.png", 0)
    images = open_images(str(tmp_path), real=True)
    with pytest.raises(UsageError, match="a temperature cannot be fitted to images without labels"):
        evaluate.evaluate(imagenet_model(970), images, real=True, fit=True)


def test_a_report_is_json(pets: Path) -> None:
    record = evaluate.evaluate(model(), open_images(str(pets)), fit=True).report.record()
    again = json.loads(json.dumps(record, allow_nan=False))
    assert again["top1_interval"] == list(record["top1_interval"])
    assert again["calibration"]["temperature"] == again["temperature"]


def test_a_report_is_one_flat_object_whose_keys_are_documented(pets: Path) -> None:
    record = evaluate.evaluate(model(), open_images(str(pets))).report.record()
    assert list(record) == [
        "model",
        "engine",
        "precision",
        "temperature",
        "images",
        "failed",
        "top1",
        "top1_interval",
        "top5",
        "loss",
        "ece",
        "macro_precision",
        "macro_recall",
        "macro_f1",
        "real_images",
        "real_top1",
        "classes",
        "confusion",
        "coverage",
        "mistakes",
        "calibration",
        "trained_on",
        "turned",
        "repeated",
    ]
    assert list(record["classes"][0]) == [
        "index",
        "id",
        "label",
        "support",
        "predicted",
        "precision",
        "recall",
        "f1",
    ]
    assert list(record["coverage"][0]) == ["threshold", "images", "coverage", "accuracy"]
    assert list(record["mistakes"][0]) == (
        ["image", "actual_index", "actual", "predicted_index", "predicted", "probability"]
    )
