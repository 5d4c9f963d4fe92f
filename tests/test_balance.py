"""Classes of unequal size: weights in the loss, balanced orders, and figures in which each class counts the same."""

import functools

import pytest
import torch
import torch.nn.functional as F
from conftest import Coloured
from test_training import classifier, trainer, weights
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from camlab.data.balance import balanced_order, class_weights
from camlab.data.image_set import ImageSet
from camlab.data.loader import Loader
from camlab.evaluation import run_result
from camlab.evaluation.report import metric_lines
from camlab.training.callbacks.checkpoints import checkpoints
from camlab.training.callbacks.feature_cache import FeatureCache
from camlab.training.metrics import ClassCounts
from camlab.training.run import Run

LABELS = torch.tensor([0] * 40 + [1] * 7 + [2] * 3)


class Unequal(Coloured):
    """Of each class half as many pictures as of the one before."""

    def _draw(self, n: int, seed: int) -> ImageSet:
        drawn = super()._draw(n, seed)
        kept = [i for i, label in enumerate(drawn.labels.tolist()) if (i // self.num_classes) % 2**label == 0]
        return drawn.subset(torch.tensor(kept))


def test_weights_give_each_class_the_same_share_of_the_loss():
    found = class_weights(LABELS, 4)
    totals = torch.bincount(LABELS, weights=found[LABELS])
    torch.testing.assert_close(totals, torch.full((3,), 12.5))  # N / M: the fourth class has no picture
    assert float(class_weights(torch.tensor([0, 1, 1, 0]), 2).sum()) == 2


def test_a_balanced_order_is_a_function_of_seed_and_epoch_in_which_classes_come_equally_often():
    orders = [balanced_order(LABELS, 0, epoch) for epoch in range(3)]
    for order in orders:
        counts = torch.bincount(LABELS[order])
        assert len(order) == 50
        assert counts.max() - counts.min() <= 1
        times = torch.bincount(order, minlength=50)
        for label in range(3):
            own = times[label == LABELS]
            assert own.max() - own.min() <= 1, "no picture twice before all others of its class"
    assert torch.equal(orders[1], balanced_order(LABELS, 0, 1))
    assert not torch.equal(orders[1], orders[2])
    assert not torch.equal(orders[1], balanced_order(LABELS, 1, 1))
    assert sorted(balanced_order(torch.arange(6) % 3, 0, 0).tolist()) == list(range(6)), "equal classes: each once"
    images = ImageSet(torch.zeros(50, 3, 4, 4, dtype=torch.uint8), LABELS, ("a", "b", "c"))
    order = functools.partial(balanced_order, LABELS)
    ranks = [Loader(images, 8, True, 0, rank, 2, order=order) for rank in range(2)]
    seen = torch.cat([share.image_idx for shares in zip(*ranks, strict=True) for share in shares])
    assert torch.equal(seen, orders[0]), "two processes see what one sees"


def test_counts_equal_torchmetrics():
    logits, labels = torch.randn(200, 5), torch.randint(0, 5, (200,))
    counts = ClassCounts(5)
    for some in torch.arange(200).split(64):
        counts.update(logits[some], labels[some])
    found = counts.compute()
    torch.testing.assert_close(found["acc"], multiclass_accuracy(logits, labels, 5, average="micro"))
    torch.testing.assert_close(found["balanced_acc"], multiclass_accuracy(logits, labels, 5, average="macro"))
    torch.testing.assert_close(found["f1"], multiclass_f1_score(logits, labels, 5, average="macro"))


def test_a_class_without_pictures_has_no_share_in_the_balanced_accuracy():
    counts = ClassCounts(4)
    counts.update(F.one_hot(torch.tensor([0, 0, 2, 1]), 4).float(), torch.tensor([0, 0, 0, 1]))
    found = {name: float(value) for name, value in counts.compute().items()}
    assert found == pytest.approx({"acc": 0.75, "balanced_acc": (2 / 3 + 1) / 2, "f1": (0.8 + 1 + 0) / 3})


def test_a_weighted_step_follows_the_gradient_of_the_weighted_loss(tmp_path):
    """One step of gradient descent on all pictures, against torch's own weighted cross-entropy."""
    module, data = classifier("alexnet", lr=1.0), Unequal(n_train=32, n_test=4, val_size=0, flip=0.0, balance="weights")
    module._make_optimizer = functools.partial(torch.optim.SGD, lr=0.1)
    data.setup()
    data.batch_size = len(data.splits["train"])
    oracle = classifier("alexnet").network.train()
    train = data.splits["train"]
    weight = class_weights(train.labels, 4)
    torch.manual_seed(0)
    loss = F.cross_entropy(oracle(data.preprocess(train.images)), train.labels, weight=weight)
    loss.backward()  # torch divides by the sum of the pictures' weights, which is their number
    before = oracle.fc.weight.detach().clone()
    torch.manual_seed(0)
    run = trainer(tmp_path, limit_val_batches=0)
    run.fit(module, datamodule=data)
    torch.testing.assert_close(module.network.fc.weight, before - 0.1 * oracle.fc.weight.grad, atol=1e-5, rtol=1e-4)
    assert abs(float(run.callback_metrics["train/loss"]) - float(loss.detach())) > 1e-4, (
        "the logged loss has no weights"
    )


def test_a_run_with_balanced_sampling_continues_bit_for_bit_and_reports_by_class(tmp_path):
    def fitted(epochs: int, resume: bool = False):
        module, data = classifier("alexnet", "frozen"), Unequal(n_train=48, n_test=16, val_size=8, balance="sampling")
        saving = [FeatureCache(str(tmp_path / "cache")), *checkpoints(Run(tmp_path), True, by="val/balanced_acc")]
        run = trainer(tmp_path, max_epochs=epochs, callbacks=saving)
        last = tmp_path / "checkpoints" / "last.ckpt"
        run.fit(module, datamodule=data, ckpt_path=last if resume else None, weights_only=True)
        return run, module, data

    run, whole, data = fitted(2)
    report = run_result.test_fitted(run, whole, data, None, tmp_path)
    result = run_result.describe_result(run, data, {}, report)
    assert result["checkpoint_by"] == "val/balanced_acc"
    assert result["metrics"]["test/balanced_acc"] == pytest.approx(sum(report.per_class.values()) / 4)
    (line,) = metric_lines(result["metrics"], "test/")
    assert f"{result['metrics']['test/f1']:.3f}" in line
    fitted(1)
    _, continued, _ = fitted(2, resume=True)
    expected = weights(whole.network)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(continued.network).items())
