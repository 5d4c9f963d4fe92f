"""The network that a command is given: from a checkpoint, or by name."""

from dataclasses import replace

from camlab.attribution.classifier import count_classes
from camlab.errors import UserError
from camlab.models import catalog
from camlab.models.trained_network import TrainedNetwork
from camlab.storage.documents import read_names
from camlab.storage.files import user_path


def given_network(
    checkpoint: str | None, name: str | None, weights: str | None, prefix: str | None, class_names: str | None
) -> TrainedNetwork:
    """Load a network, with a name for each of its classes.

    Args:
        checkpoint: A run's folder or a checkpoint; None if the network is given by name.
        name: Name of the network, as for `camlab.models.catalog.from_name`.
        weights: Weights of the named network.
        prefix: What precedes the names of its tensors in the file of weights.
        class_names: A file with the names of the classes; None for those that the network has, else `class 0`, ….

    Raises:
        UserError: There is no such network, its weights cannot be read, or it has not as many classes as there are
            names.
    """
    if checkpoint is not None:
        from camlab.training.checkpoint import load_network  # Lightning takes seconds to import

        trained = load_network(user_path(checkpoint, "checkpoint"))
    else:
        assert name is not None
        trained = catalog.from_name(name, weights, prefix)
    if class_names is not None:
        names = read_names(user_path(class_names, "class_names"))
        count = count_classes(trained.network, trained.preprocess.image_size)
        if len(names) != count:
            raise UserError(f"class_names={class_names}: {len(names)} names, but the network has {count} classes.")
        return replace(trained, class_names=names)
    if not trained.class_names:
        count = count_classes(trained.network, trained.preprocess.image_size)
        return replace(trained, class_names=tuple(f"class {i}" for i in range(count)))
    return trained
