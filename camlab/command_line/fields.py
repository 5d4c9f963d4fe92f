"""Types of single settings: ranges, words to choose from, arguments that camlab sets. Imports nothing heavy."""

import os
import re
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, with_config
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from camlab.data.augment_steps import PRESETS, steps_of
from camlab.drawing.colormaps import COLORMAPS
from camlab.models.classifier_names import complaint_about
from camlab.runs.watchers import CHOOSING, HEAT, HEAT_SCORES

section = with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))  # TypedDicts do not inherit it


class Words:
    """Annotation of a setting whose value is one of a few words or numbers."""

    def __init__(self, *words: str | int) -> None:
        self.words = words

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(list(self.words))


class WordsOrSteps(Words):
    """Annotation of a setting whose value is one of a few words, a list of steps of augmentation, or null."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any) -> Any:
            try:
                steps_of(value)
            except ValueError as error:
                raise PydanticCustomError("augment", "{complaint}", {"complaint": str(error)}) from None
            return value

        return core_schema.no_info_plain_validator_function(check)


@dataclass(frozen=True)
class Instead:
    """Annotation of an argument that the user cannot give, since camlab sets it itself.

    Attributes:
        hint: What the user can do instead.
    """

    hint: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def refuse(value: Any) -> None:
            raise PydanticCustomError("instead", "{hint}", {"hint": self.hint})

        return core_schema.no_info_plain_validator_function(refuse)


def words_of(annotation: Any) -> list[str]:
    """Words from which the value of a setting is chosen, in order; an empty list if the setting takes any value.

    Examples:
        >>> words_of(Annotated[str, Words("train", "test")] | None)
        ['train', 'test']
    """
    if isinstance(annotation, Words):
        return [*dict.fromkeys(map(str, annotation.words))]
    parts = getattr(annotation, "__metadata__", ()) + (
        (annotation.__origin__,) if get_origin(annotation) is Annotated else get_args(annotation)
    )
    return [word for part in parts for word in words_of(part)]


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and any other value as a list with this value."""
    return value if isinstance(value, list) else [value]


def with_good_end(value: Any) -> Any:
    """Refuse a score of heatmaps by which no epoch can be the best, since more of it is neither better nor worse."""
    if str(value).removeprefix(HEAT) in HEAT_SCORES and value not in CHOOSING:
        raise PydanticCustomError(
            "end", "more of it is neither better nor worse, so no epoch is the best. Choose from " + ", ".join(CHOOSING)
        )
    return value


def shares_of_splits(value: list[float]) -> list[float]:
    """Refuse shares of train, val and test whose sum is not 1."""
    if abs(sum(value) - 1) > 1e-6 or value[0] == 0:
        raise PydanticCustomError(
            "shares", "must be shares of train, val and test whose sum is 1, such as [0.8,0.1,0.1]"
        )
    return value


def steps_or_minutes(value: Any) -> Any:
    """Refuse an interval that is neither a number of steps nor a number of minutes."""
    if value is None or (not isinstance(value, bool) and re.fullmatch(r"[1-9]\d*|\d+(\.\d+)? ?min", str(value))):
        return value
    raise PydanticCustomError("form", "must be a number of steps such as 500, a time such as 10min, or null")


NO_PLAIN_NAME = (
    "must be a plain name, because it names a folder: no slashes or control characters, not '.' or '..', and at most"
    " 200 bytes"
)
_LONGEST_NAME = 200  # bytes; file systems allow 255, and camlab puts the time before some names


def is_plain_name(value: Any) -> bool:
    """Whether a value can name a file directly in a folder, without leaving that folder.

    Examples:
        >>> is_plain_name("a run (1)"), is_plain_name("../x"), is_plain_name(".."), is_plain_name("")
        (True, False, False, False)
    """
    if not isinstance(value, str) or value in ("", ".", "..") or "/" in value or os.sep in value:
        return False
    return value.isprintable() and len(os.fsencode(value)) <= _LONGEST_NAME


def _plain_name(value: str) -> str:
    if not is_plain_name(value):
        raise PydanticCustomError("name", NO_PLAIN_NAME)
    return value


def _known_backbone(name: str) -> str:
    if complaint := complaint_about(name):
        raise PydanticCustomError("backbone", "{complaint}", {"complaint": complaint})
    return name


Name = Annotated[str, AfterValidator(_plain_name)]
Backbone = Annotated[str, AfterValidator(_known_backbone)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Augment = Annotated[Any, WordsOrSteps(*PRESETS)]
Scaling = Annotated[str, Words("per_image", "shared", "raw")]
Colormap = Annotated[str, Words(*COLORMAPS)]
