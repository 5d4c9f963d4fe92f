"""A head that is trained alone in the first epochs, and the experiment for one's own pictures that uses it."""

import pytest
import torch
from conftest import Coloured
from test_training import classifier, trainer, weights

from camlab.training.callbacks.checkpoints import checkpoints
from camlab.training.callbacks.frozen_first import FrozenFirst
from camlab.training.run import Run


@pytest.mark.slow  # three trainings of AlexNet
def test_the_backbone_learns_after_the_first_epochs_and_a_resumed_run_does_the_same(tmp_path):
    def fitted(epochs: int, resume: bool = False) -> dict[str, torch.Tensor]:
        module, data = classifier(), Coloured(n_train=24, n_test=4, val_size=8, batch_size=8)
        saving = checkpoints(Run(tmp_path), has_validation=False)
        last = tmp_path / "checkpoints" / "last.ckpt"
        run = trainer(tmp_path, max_epochs=epochs, callbacks=[FrozenFirst(1), *saving])
        run.fit(module, datamodule=data, ckpt_path=last if resume else None, weights_only=True)
        return weights(module.network)

    untrained = weights(classifier().network)
    whole, first = fitted(2), fitted(1)
    changed = {name for name, tensor in first.items() if not torch.equal(tensor, untrained[name])}
    assert changed
    assert not any(name.startswith("backbone") for name in changed)
    assert any(not torch.equal(whole[name], first[name]) for name in whole if name.startswith("backbone"))
    continued = fitted(2, resume=True)
    assert all(torch.equal(tensor, continued[name]) for name, tensor in whole.items())


def test_a_network_that_is_frozen_for_good_stays_so(tmp_path):
    module, data = classifier(mode="frozen"), Coloured(n_train=16, n_test=4, val_size=0)
    before = weights(module.network.backbone)
    trainer(tmp_path, callbacks=[FrozenFirst(1)], limit_val_batches=0, max_epochs=2).fit(module, datamodule=data)
    assert module.network.frozen
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(module.network.backbone).items())
