"""The scores by name, with their chance levels and what they need; tables and loggers read it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from camlab.errors import UserError, did_you_mean
from camlab.scores import (
    boxes,
    descriptive,
    feature_removal,
    localisation,
    masking,
    pixel_precision,
    randomisation,
    removal,
    stability,
)

Question = Literal["place", "need", "sanity", "description"]


@dataclass(frozen=True)
class Score:
    """A score of maps.

    Attributes:
        name: Name in Python, in files and in metrics.
        title: What it tells, for tables.
        question: `place`: where is the heat? `need`: does the network need what is hot? `sanity`: is it an explanation
            of this network at all? `description`: no good or bad end.
        function: The pure function.
        chance: Chance level of all images, or a function that gives that of each image from its mask; None if it is
            only known from the pseudo-methods.
        exact: Whether random maps score exactly at the chance level in expectation, so that the scoring can be checked.
        higher_is_better: None where neither end is good.
        needs_masks: Whether masks of the objects are needed.
        of_set: Whether there is one value for a whole set, and not one for each image.
    """

    name: str
    title: str
    question: Question
    function: Callable[..., Any]
    chance: float | Callable[[Tensor], Tensor] | None = None
    exact: bool = False
    higher_is_better: bool | None = None
    needs_masks: bool = False
    of_set: bool = False


def _of_place(name: str, title: str, function: Callable[..., Any], **more: Any) -> Score:
    return Score(name, title, "place", function, higher_is_better=True, needs_masks=True, **more)


def _of_need(name: str, title: str, function: Callable[..., Any], better: bool = True, **more: Any) -> Score:
    return Score(name, title, "need", function, higher_is_better=better, **more)


SCORES = {
    score.name: score
    for score in (
        _of_place("auroc", "object's pixels are hotter", localisation.auroc, chance=0.5, exact=True),
        _of_place("energy", "share of the heat on the object", localisation.energy, chance=localisation.area),
        _of_place("energy_gain", "energy above chance", localisation.energy_gain, chance=0.0, exact=True),
        _of_place(
            "pointing_game",
            "hottest cell is on the object",
            localisation.pointing_game,
            chance=localisation.pointing_game_chance,
        ),
        _of_place("max_box_acc", "box of a hot region is right", boxes.max_box_acc),
        _of_place("pxap", "pixel precision over recall", pixel_precision.pxap, chance=localisation.area, of_set=True),
        _of_need("srg", "symmetric relevance gain", removal.srg, chance=0.0, exact=True),
        _of_need("feature_srg", "the same on features", feature_removal.feature_srg, chance=0.0),
        _of_need("insertion", "probability while inserting", removal.insertion),
        _of_need("deletion", "probability while deleting", removal.deletion, better=False),
        _of_need("average_drop", "drop with the heat alone", masking.average_drop, better=False),
        _of_need("increase", "rise with the heat alone", masking.increase),
        _of_need("road", "remove and debias", removal.road, chance=0.0, exact=True),
        Score("mprt", "similarity after randomising", "sanity", randomisation.mprt, higher_is_better=False),
        Score("emprt", "rise of entropy after randomising", "sanity", randomisation.emprt, higher_is_better=True),
        Score("max_sensitivity", "change under noise", "sanity", stability.max_sensitivity, higher_is_better=False),
        Score("flip_consistency", "mirrors with the picture", "sanity", stability.flip_consistency, 0.0, False, True),
        Score("effective_area", "spread of the heat", "description", descriptive.effective_area),
        Score("class_contrast", "change with the class", "description", descriptive.class_contrast, chance=1.0),
        Score("drift", "change since the epoch before", "description", descriptive.drift, chance=1.0),
        Score("agreement", "CAM and Grad-CAM agree", "description", descriptive.agreement, chance=0.0),
    )
}


def score_of(name: str) -> Score:
    """Return the score of a name.

    Raises:
        UserError: There is none; the message lists the known ones.

    Example:
        >>> score_of("auroc").chance
        0.5
        >>> score_of("srq")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        camlab.errors.UserError: score=srq: unknown. Did you mean srg? Choose from auroc, ...
    """
    if not isinstance(name, str) or name not in SCORES:
        raise UserError(f"score={name}: unknown. {did_you_mean(str(name), SCORES)}Choose from {', '.join(SCORES)}.")
    return SCORES[name]
