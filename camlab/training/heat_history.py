"""What a training's scores of heatmaps are compared with; checkpoints keep it, so that resumed runs log the same."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from camlab.training.heat_falls import WATCHED, Fall, Measured, fall_of, falls_from
from camlab.training.heat_values import HeatValues


class HeatHistory:
    """The previous scoring, and what has been told since the training began.

    Attributes:
        previous: The previous scoring; None before the first.
        falls: Falls of scores while the accuracy rose.
        named: Scores whose chance levels have been logged.
    """

    def __init__(self) -> None:
        self.previous: HeatValues | None = None
        self.falls: list[Fall] = []
        self.named: set[str] = set()
        self._measured: dict[str, Measured] = {}

    def compare(self, found: HeatValues, epoch: int, accuracy: float) -> list[Fall]:
        """Compare the watched scores with their previous values, keep them, and return those that have fallen.

        Args:
            found: A scoring.
            epoch: Epochs done.
            accuracy: Accuracy, 0 to 1, whose rise makes a fall worth telling.
        """
        new = []
        for name in WATCHED:
            if name in found.values:
                measured = Measured(epoch, accuracy, found.values[name])
                before, self._measured[name] = self._measured.get(name), measured
                if before is not None and (fall := fall_of(name, before, measured)) is not None:
                    new.append(fall)
        self.falls += new
        return new

    def state(self, identity: str) -> dict[str, Any]:
        """What a checkpoint keeps.

        Args:
            identity: Hash of the images that are scored.
        """
        previous = self.previous or HeatValues()
        return {
            "identity": identity,
            "maps": previous.maps,
            "class_idx": previous.class_idx,
            "named": sorted(self.named),
            "falls": [fall.as_dict() for fall in self.falls],
            "measured": {name: (m.epoch, m.accuracy, m.values) for name, m in self._measured.items()},
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any], identity: str) -> "HeatHistory":
        """The history that a checkpoint holds; of other images than those that are scored now, only what was told.

        Raises:
            ValueError: The state is damaged. Other exceptions mean that an entry is missing or has another type.
        """
        history = cls()
        history.falls, history.named = falls_from(state["falls"]), set(map(str, state["named"]))
        if state["identity"] != identity:
            return history
        maps, class_idx = state["maps"], state["class_idx"]
        if not _is_of(maps, 3) or not _is_of(class_idx, 1) or len(maps) != len(class_idx):
            raise ValueError("the previous maps are damaged")
        if len(maps):
            history.previous = HeatValues(maps=maps.float(), class_idx=class_idx.long())
        for name, (epoch, accuracy, values) in state["measured"].items():
            if name not in WATCHED or not _is_of(values, 1):
                raise ValueError("the previous values are damaged")
            history._measured[name] = Measured(int(epoch), float(accuracy), values.float())
        return history


def _is_of(tensor: Any, dimensions: int) -> bool:
    return isinstance(tensor, Tensor) and tensor.dim() == dimensions
