"""Evaluations: what is counted, what a report says, and how the names of classes are drawn."""

import csv
import dataclasses
import json

import lightning as L
import numpy as np
import pytest
import torch
from conftest import Coloured
from PIL import Image

from camlab.data.class_order import number_classes
from camlab.data.image_set import ImageSet
from camlab.errors import UserError
from camlab.evaluation.confusion import ConfusionCounter
from camlab.evaluation.confusion_plot import draw_confusion
from camlab.evaluation.report import Report, write_report
from camlab.evaluation.testing import evaluate
from camlab.models.cam_net import CamNet
from camlab.models.preprocess import Preprocess
from camlab.models.trained_network import TrainedNetwork
from camlab.training.classifier import Classifier

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def test_a_report_needs_a_confusion_matrix_and_names_only(tmp_path):
    report = Report(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), ("größer", "$_$", "none"))
    assert report.accuracy == 7 / 8
    assert report.per_class == {"größer": 0.75, "$_$": 1.0}, "a class without images has no accuracy"
    assert report.as_text().splitlines() == [
        "test, 8 images: accuracy 87.50 %", "  größer   75.00 %", "  $_$     100.00 %"
    ]  # fmt: skip
    write_report(tmp_path / "new", report)
    assert json.loads((tmp_path / "new" / "evaluation.json").read_text())["images"] == 8
    with open(tmp_path / "new" / "confusion_matrix.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1] == ["größer", "3", "1", "0"]
    with Image.open(tmp_path / "new" / "confusion_matrix.png") as picture:
        assert np.array_equal(np.asarray(picture), report.confusion_picture())


def test_names_are_drawn_literally():
    """A dollar sign does not start a formula, letters of any alphabet are drawn, and nothing warns."""

    def drawn(name: str) -> np.ndarray:
        picture = draw_confusion(np.eye(2, dtype=int), (name, "x"))
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        return picture

    names = ["$_$", "$\\frac$", "a_b^c", "Großer Fisch", "кошка", "γάτα"]
    pictures = [drawn(name) for name in names]
    assert len({picture.tobytes() for picture in pictures}) == len(names)
    assert not np.array_equal(drawn("猫"), drawn("")), "a letter that the font lacks must be drawn as a box"


@pytest.mark.slow
def test_many_classes_are_drawn():
    confusion = np.eye(200, dtype=int)
    assert max(draw_confusion(confusion, [f"c{i}" for i in range(200)]).shape) <= 7200


def trained_network(data: Coloured, num_outputs: int) -> TrainedNetwork:
    data.setup()
    network = CamNet("alexnet", num_classes=num_outputs).eval()
    with torch.no_grad():
        network.fc.bias[-1] = 100.0  # the network always predicts the last output
    return TrainedNetwork(network, Preprocess(64), data.class_names, "alexnet")


def test_outputs_beyond_the_classes_of_the_data_are_counted(tmp_path):
    data = Coloured(masks=True, image_size=224)  # a map of 6×6 cells: smaller ones are not scored
    report = evaluate(trained_network(data, 6), data, "test", {"accelerator": "cpu"}, str(tmp_path))
    assert report.class_names == ("class0", "class1", "class2", "class3", "output 4", "output 5")
    assert report.confusion[:4, 5].tolist() == [6, 6, 6, 6]
    assert report.confusion.sum() == 24
    assert "nan" not in report.as_text()
    assert "output" not in report.as_text(), "outputs without images have no line"
    assert {"acc", "loss", "pointing_game"} <= set(report.metrics)
    said = f"lies on the object in {100 * report.metrics['pointing_game']:.1f} % of pictures (pointing game; random"
    assert f"\nThe hottest point {said}" in report.as_text()


def test_an_evaluation_of_no_images_is_refused(tmp_path):
    data = Coloured()
    options = {"accelerator": "cpu", "limit_test_batches": 0}
    with pytest.raises(UserError, match=r"^trainer\.limit_test_batches=0: no image would be evaluated"):
        evaluate(trained_network(data, 4), data, "test", options, str(tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_whose_output_is_not_finite_has_no_accuracy(tmp_path, value):
    data = Coloured()
    trained = trained_network(data, 4)
    with torch.no_grad():
        trained.network.fc.bias[0] = value
    with pytest.raises(UserError, match=r"^The network's output is NaN or infinite for 24 of 24 images"):
        evaluate(trained, data, "test", {"accelerator": "cpu"}, str(tmp_path))


def test_other_pictures_than_those_of_the_training_are_told(tmp_path, caplog):
    caplog.set_level("INFO")
    data = Coloured()
    trained = trained_network(data, 4)
    for own, count in ((None, 0), (data.fingerprint(), 0), ("another", 1)):
        caplog.clear()
        network = dataclasses.replace(trained, data_fingerprint=own)
        evaluate(network, data, "test", {"accelerator": "cpu"}, str(tmp_path))
        assert caplog.text.count("are not those that the network was trained with") == count


def test_data_with_other_classes_are_refused(tmp_path):
    network = trained_network(Coloured(), 4)
    with pytest.raises(
        UserError, match="The network knows class0, class1, class2, class3; the data has class0, class1"
    ):
        evaluate(network, Coloured(num_classes=2), "test", {"accelerator": "cpu"}, str(tmp_path))


class Renamed(Coloured):
    """The same pictures, whose source states the classes in another order."""

    def load(self) -> tuple[ImageSet, ...]:
        new, old = torch.tensor([2, 0, 3, 1]), super().load()
        names = tuple(old[0].class_names[k] for k in new.argsort().tolist())
        return tuple(dataclasses.replace(own, labels=new[own.labels], class_names=names) for own in old)


@pytest.mark.slow  # two evaluations
def test_classes_in_another_order_are_numbered_as_in_the_network(tmp_path, caplog):
    caplog.set_level("INFO")
    options = {"masks": True, "shortcut": "patch", "shortcut_classes": ["class1", "class3"]}
    data, other = Coloured(**options), Renamed(**options)
    data.setup()
    network = CamNet("alexnet", num_classes=4).eval()
    trained = TrainedNetwork(network, Preprocess(64), data.class_names, "alexnet", data_fingerprint=data.fingerprint())
    reports = [evaluate(trained, own, "test", {"accelerator": "cpu"}, str(tmp_path)) for own in (data, other)]
    assert caplog.text.count("numbered as in the network: class0, class1, class2, class3, not class1, class3, cl") == 1
    assert "are not those that the network was trained with" not in caplog.text
    assert np.array_equal(reports[0].confusion, reports[1].confusion)
    assert reports[0].metrics == reports[1].metrics
    assert other.shortcut == data.shortcut
    assert other.fingerprint() == data.fingerprint()


def test_labels_of_a_picture_with_several_are_numbered_anew():
    data, labels = Coloured(), torch.tensor([[1, 0, 0], [0, 1, 1]])
    data.splits = {"train": ImageSet(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), labels, ("a", "b", "c"))}
    number_classes(data, ("c", "a", "b"))
    assert data.splits["train"].labels.tolist() == [[0, 1, 0], [1, 0, 1]]
    assert data.class_names == ("c", "a", "b")
    for classes in (None, [0]):
        (marked := Coloured(shortcut="patch", shortcut_classes=classes)).setup()
        with pytest.raises(UserError, match="an index marks another class"):
            number_classes(marked, marked.class_names[::-1])


def test_a_counter_starts_anew_with_each_test():
    data, counter = Coloured(), ConfusionCounter(4)
    module = Classifier(trained_network(data, 4).network, torch.optim.Adam)
    for _ in range(2):
        L.Trainer(**QUIET, accelerator="cpu", callbacks=[counter]).test(module, datamodule=data, verbose=False)
        assert counter.counts.sum() == 24
