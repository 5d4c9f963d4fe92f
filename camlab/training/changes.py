"""Settings that differ between a checkpoint and the run that continues from it: which of them can be applied."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from camlab.errors import UserError, cut
from camlab.runs.watchers import ACCURACY, FORMER, WATCHERS

Changes = Mapping[str, tuple[Any, Any]]

# Settings of `data` that do not count, because the content of the data decides the result, not its place.
OF_THE_PLACE = ("root", "file", "path", "annotations", "cache", "download", "placement", "num_workers")
WEIGHTS_CHECKSUM = "arch.weights_sha256"  # recorded beside arch.weights, in case the file moves
_WITHOUT_EFFECT = ("mode", *(f"data.{name}" for name in OF_THE_PLACE))
_FOR_GOOD = ("arch", "seed", "scheduler")  # they determine the initial weights and the running schedule
_SCHEDULED = ("optimizer.lr", "optimizer.momentum", "optimizer.betas")
_LENGTH = (
    "trainer.max_epochs", "trainer.max_steps", "trainer.accumulate_grad_batches", "trainer.limit_train_batches",
    "data.batch_size", "data.val_size", "data.train_size",
)  # fmt: skip
_ORDER = (
    "trainer.accumulate_grad_batches", "trainer.limit_train_batches", "trainer.overfit_batches",
    "trainer.val_check_interval", "trainer.check_val_every_n_epoch",
    "trainer.devices", "trainer.num_nodes", "trainer.strategy",
)  # fmt: skip


@dataclass(frozen=True)
class Optimizing:
    """The optimizer of a run that continues.

    Attributes:
        defaults: Its settings, as in the attribute `defaults` of torch's optimizers.
        state_names: Names of what it keeps for each weight from one step to the next.
    """

    defaults: Mapping[str, Any]
    state_names: Set[str]

    def lacks_state(self, content: Mapping[str, Any]) -> bool:
        """Whether it needs what the optimizer of a checkpoint has not kept, such as RMSprop with a new momentum."""
        states = content["optimizer_states"][0]["state"].values()
        return any(isinstance(state, dict) and state and not self.state_names <= state.keys() for state in states)


def changed_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """Settings that differ, by dotted name: their old and new values, with None where a setting was not given.

    Settings that cannot change the result do not count.

    Example:
        >>> changed_settings({"optimizer": {"lr": 0.1}, "seed": 0}, {"optimizer": {"lr": 0.2}, "seed": 0})
        {'optimizer.lr': (0.1, 0.2)}
    """
    before, after = dict(_flat(_decisive(then))), dict(_flat(_decisive(now)))
    checksums = [settings.pop(WEIGHTS_CHECKSUM, None) for settings in (before, after)]
    names = {**before, **after}
    if None not in checksums:  # the content of the file decides, not its name
        names.pop("arch.weights", None)
        names |= {WEIGHTS_CHECKSUM: None}
        before[WEIGHTS_CHECKSUM], after[WEIGHTS_CHECKSUM] = checksums
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if name not in _WITHOUT_EFFECT and before.get(name) != after.get(name)
    }


def check_changes(changes: Changes, now: Mapping[str, Any], content: Mapping[str, Any], optimizing: Optimizing) -> None:
    """Refuse changes that cannot be applied to a run that has begun.

    Args:
        changes: Changes, as `changed_settings` returns them.
        now: Settings of the run that continues.
        content: Content of the checkpoint that it continues from.
        optimizing: Its optimizer.

    Raises:
        UserError: The message names the settings with their old and new values.
    """
    refused = {name: change for name, change in changes.items() if not _is_applicable(name, now, content, optimizing)}
    if refused:
        raise UserError(
            f"These settings cannot change when a run continues: {describe_changes(refused)}.",
            "Restore their old values, or start from the beginning with resume=null and another out=FOLDER.",
        )


def describe_changes(changes: Changes) -> str:
    """Describe changes for a message in a readable length: the first 20, with each name and value cut.

    Example:
        >>> describe_changes({"optimizer.lr": (0.1, 0.2), "seed": (None, 1)})
        'optimizer.lr 0.1 → 0.2, seed null → 1'
    """
    words = [[cut(str("null" if value is None else value), 80) for value in pair] for pair in changes.values()]
    described = [f"{cut(name, 80)} {before} → {after}" for name, (before, after) in zip(changes, words, strict=True)]
    return ", ".join(described[:20]) + (f", … ({len(described)} in all)" if len(described) > 20 else "")


def _is_applicable(name: str, now: Mapping[str, Any], content: Mapping[str, Any], optimizing: Optimizing) -> bool:
    section, key, *_ = [*name.split("."), ""]
    if section in _FOR_GOOD:
        return False
    if section == "optimizer":
        scheduled = (content["lr_schedulers"] and name in _SCHEDULED) or (
            name == "optimizer.lr" and any(key.partition("{")[0] == "FrozenFirst" for key in content["callbacks"])
        )
        return _is_number(optimizing.defaults.get(key)) and not scheduled and not optimizing.lacks_state(content)
    if section == "callbacks":
        return not _has_state((now.get("callbacks") or {}).get(key), content["callbacks"])
    progress = content["loops"]["fit_loop"]["epoch_progress"]["current"]
    if progress["processed"] < progress["ready"] and (section == "data" or name in _ORDER):
        return False  # the rest of the epoch would have other images
    return name not in _LENGTH or not any("total_steps" in schedule for schedule in content["lr_schedulers"])


def _is_number(value: Any) -> bool:
    """Whether an optimizer's setting is a number or several, which it reads at each step; switches do not count."""
    if isinstance(value, (tuple, list)):
        return all(map(_is_number, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _has_state(callback: Mapping[str, Any] | None, states: Mapping[str, Any]) -> bool:
    """Whether a checkpoint holds the state of a callback, which Lightning restores together with its settings."""
    kind = "" if callback is None else callback["_target_"].rpartition(".")[2]
    return bool(kind) and any(key.partition("{")[0] == kind for key in states)


def _decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the callbacks that only watch, and with the metric that chooses the best epoch."""
    callbacks = settings.get("callbacks") or {}
    watchers = (*WATCHERS.values(), FORMER)
    taking_part = {name: node for name, node in callbacks.items() if node and node.get("_target_") not in watchers}
    chosen = settings.get("checkpoint_by", ACCURACY)  # older checkpoints do not state it
    return {**settings, "checkpoint_by": chosen, "callbacks": taking_part}


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield from _flat(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, node
