"""The steps of augmentation, their numbers, and what `data.augment` means. Imports nothing heavy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camlab.errors import cut, did_you_mean

Steps = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Number:
    """A number that a step takes: its default and its range, which includes both ends."""

    default: float
    least: float
    most: float
    whole: bool = False


_SHARE = Number(0.5, 0, 1)
# The first number of a step is the one that {step: number} sets.
STEPS: dict[str, dict[str, Number]] = {
    "flip": {"p": _SHARE},
    "shift": {"pixels": Number(4, 0, 32, whole=True)},
    "crop": {"scale": Number(0.5, 0.01, 1), "ratio": Number(4 / 3, 1, 4)},
    "rotate": {"degrees": Number(15, 0, 180)},
    "color": {
        "strength": Number(0.3, 0, 1),  # the default of the next three
        "brightness": Number(0.3, 0, 1),
        "contrast": Number(0.3, 0, 1),
        "saturation": Number(0.3, 0, 1),
        "hue": Number(0, 0, 0.5),
    },
    "randaugment": {"magnitude": Number(9, 0, 30), "number": Number(2, 1, 8, whole=True)},
    "erase": {"p": Number(0.25, 0, 1), "area": Number(0.25, 0.02, 0.9)},
    "mixup": {"p": _SHARE, "alpha": Number(0.2, 0.01, 10)},
    "cutmix": {"p": _SHARE, "alpha": Number(1, 0.01, 10)},
}
PRESETS: dict[str, Steps] = {
    "none": {},
    "flip": {"flip": {}},
    "standard": {"flip": {}, "crop": {}, "color": {}},
    "strong": {"flip": {}, "crop": {"scale": 0.25}, "randaugment": {}, "erase": {}},
}
MIXING = ("mixup", "cutmix")
_OF_STRENGTH = ("brightness", "contrast", "saturation")  # numbers of `color` that its strength sets
_EXAMPLE = "[standard,{crop: 0.4},{mixup: {p: 0.5, alpha: 0.2}}]"


def steps_of(augment: Any, flip: float = 0.5, max_shift: int = 0) -> Steps:
    """Find the steps that `data.augment` asks for, with all their numbers, in the order in which they are applied.

    Args:
        augment: Name of a preset, a list of presets and steps, or None for flips and shifts only. A step is a name,
            `{name: number}` or `{name: {number: value, …}}`; a later entry changes the numbers of an earlier one.
        flip: Default probability of the step `flip`.
        max_shift: Largest shift if `augment` is None.

    Raises:
        ValueError: The message says what is wrong with the entry, and what is allowed.

    Example:
        >>> steps_of(["flip", {"crop": 0.4}])
        {'flip': {'p': 0.5}, 'crop': {'scale': 0.4, 'ratio': 1.3333333333333333}}
        >>> steps_of([{"color": {"hue": 0.1, "contrast": 0.2}}, {"color": 0.5}])["color"]
        {'brightness': 0.5, 'contrast': 0.5, 'saturation': 0.5, 'hue': 0.1}
    """
    if augment is None:
        chosen: Steps = {"flip": {"p": flip}, "shift": {"pixels": max_shift}}
    else:
        if max_shift > 0:
            raise ValueError(
                f"data.max_shift={max_shift} counts for null only; give {{shift: {max_shift}}} in the list"
            )
        chosen = {}
        for entry in [augment] if isinstance(augment, str) else _entries(augment):
            for name, numbers in _read(entry).items():
                earlier = chosen.get(name, {})
                if "strength" in numbers:  # it sets three numbers at once
                    earlier = {key: value for key, value in earlier.items() if key not in _OF_STRENGTH}
                chosen[name] = {**earlier, **numbers}
    full = {name: {**_defaults(name, flip, chosen[name]), **chosen[name]} for name in STEPS if name in chosen}
    steps = {name: {key: numbers[key] for key in numbers if key != "strength"} for name, numbers in full.items()}
    if sum(steps[name]["p"] for name in MIXING if name in steps) > 1:
        raise ValueError("the shares p of mixup and cutmix exceed 1 together")
    return {
        name: numbers for name, numbers in steps.items() if numbers.get("p", 1) > 0 and numbers.get("pixels", 1) > 0
    }


def describe_steps(steps: Mapping[str, Mapping[str, float]]) -> str:
    """Describe steps in words for a person.

    Example:
        >>> describe_steps(steps_of(["flip", {"crop": 0.4}]))
        'flip (p 0.5), crop (scale 0.4, ratio 1.33)'
    """
    described = [
        f"{name} ({', '.join(f'{key} {value:.3g}' for key, value in numbers.items())})"
        for name, numbers in steps.items()
    ]
    return ", ".join(described) or "none"


def _entries(augment: Any) -> Sequence[Any]:
    if isinstance(augment, Sequence):
        return augment
    raise ValueError(f"must be {', '.join(PRESETS)}, null, or a list such as {_EXAMPLE}")


def _read(entry: Any) -> Steps:
    """The steps that one entry of the list stands for, with the numbers that it states."""
    if isinstance(entry, str) and entry in PRESETS:
        return {name: dict(numbers) for name, numbers in PRESETS[entry].items()}
    if isinstance(entry, str):
        return {_known(entry): {}}
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ValueError(f"an entry is a name, {{name: number}} or {{name: {{…}}}}, as in {_EXAMPLE}")
    (name, given), *_ = entry.items()
    numbers = STEPS[_known(name)]
    given = given if isinstance(given, Mapping) else {next(iter(numbers)): given}
    return {name: {key: _number(name, key, value) for key, value in given.items()}}


def _known(name: Any) -> str:
    if isinstance(name, str) and name in STEPS:
        return name
    hint = did_you_mean(str(name), {**STEPS, **PRESETS})
    presets = [preset for preset in PRESETS if preset not in STEPS]
    raise ValueError(f"unknown step {cut(str(name))}. {hint}Choose from {', '.join((*STEPS, *presets))}")


def _number(step: str, key: Any, value: Any) -> float:
    numbers = STEPS[step]
    if key not in numbers:
        raise ValueError(f"{step} has no number {cut(str(key))}. Choose from {', '.join(numbers)}")
    allowed = numbers[key]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not allowed.least <= value <= allowed.most or (allowed.whole and value != int(value)):
        kind = "a whole number" if allowed.whole else "a number"
        raise ValueError(f"{step}.{key} must be {kind} from {allowed.least:g} to {allowed.most:g}")
    return float(value)


def _defaults(step: str, flip: float, given: Mapping[str, float]) -> dict[str, float]:
    defaults = {key: number.default for key, number in STEPS[step].items()}
    if step == "flip":
        defaults["p"] = flip
    if step == "color" and "strength" in given:
        defaults |= dict.fromkeys(_OF_STRENGTH, given["strength"])
    return defaults
