"""Schemas of the settings of each command: names, types and ranges. This module imports nothing heavy.

Sections that name a class (`data`, `trainer`, …) are `Any` here; their schemas are in `camlab.command_line.sections`.
"""

from typing import Annotated, Any, Required

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict  # pydantic needs this version before Python 3.12

from camlab.attribution.methods import METHODS
from camlab.command_line.fields import (
    Colormap,
    Count,
    Name,
    Scaling,
    Seed,
    Share,
    Words,
    as_list,
    section,
    steps_or_minutes,
    with_good_end,
)
from camlab.runs.score_names import IMPUTERS, SCORES
from camlab.runs.watchers import CHOOSING


@section
class AllPaths(TypedDict, total=False):
    data: Required[str]
    outputs: Required[str]
    cache: Required[str]


@section
class Train(TypedDict, total=False):
    arch: Required[Any]
    data: Required[Any]
    trainer: Required[Any]
    optimizer: Required[Any]
    scheduler: Any
    logger: Any
    callbacks: Any
    paths: Required[AllPaths]
    mode: Required[str]
    seed: Required[Seed]
    test_each_epoch: Required[bool]
    sweep: Name | None
    resume: str | None
    force: Required[bool]
    checkpoint_by: Required[Annotated[str, Words(*CHOOSING), BeforeValidator(with_good_end)]]
    checkpoint_every: Annotated[Any, BeforeValidator(steps_or_minutes)]
    cache: Required[bool]
    compile: Required[bool]
    deterministic: Required[bool]
    run_name: Required[Name]


@section
class Evaluate(TypedDict, total=False):
    checkpoint: Required[str]
    split: Required[Annotated[str, Words("train", "val", "test")]]
    data: Required[Any]
    trainer: Required[Any]
    paths: Required[AllPaths]


@section
class NamedNetwork(TypedDict, total=False):
    name: Required[str | None]
    weights: Required[str | None]
    prefix: Required[str | None]


Methods = Annotated[list[Annotated[str, Words("auto", *METHODS)]], Field(min_length=1), BeforeValidator(as_list)]
Layers = Annotated[list[str | int], BeforeValidator(as_list)]


@section
class Explain(TypedDict, total=False):
    images: Required[str | int | None]
    data: Any
    split: Required[Annotated[str, Words("train", "val", "test")]]
    network: Required[NamedNetwork]
    paths: Required[AllPaths]
    checkpoint: str | None
    class_names: str | None
    methods: Methods | None
    layer: Layers | None
    target: Required[str | int]
    top_k: Required[Annotated[int, Field(ge=1, le=100)] | None]
    normalize: Required[Scaling]
    colormap: Required[Colormap]
    counterfactual: Required[bool]
    boxes: Required[bool]
    alpha: Required[Share]
    batch_size: Required[Count]
    device: Required[Annotated[str, Words("auto", "cpu", "gpu", "cuda", "mps")]]


@section
class CacheFolder(TypedDict, total=False):
    cache: Required[str]


@section
class Cache(TypedDict, total=False):
    paths: Required[CacheFolder]
    action: Required[Annotated[str, Words("list", "clear")]]


@section
class Dashboard(TypedDict, total=False):
    project: Required[Annotated[str, Field(min_length=1)]]
    entity: str | None


AnyMethods = Annotated[
    list[Annotated[str, Words("auto", "all", *METHODS)]], Field(min_length=1), BeforeValidator(as_list)
]
Scores = Annotated[list[Annotated[str, Words("auto", "all", *SCORES)]], Field(min_length=1), BeforeValidator(as_list)]
Imputers = Annotated[list[Annotated[str, Words(*IMPUTERS)]], Field(min_length=1), BeforeValidator(as_list)]


@section
class Score(TypedDict, total=False):
    network: Required[NamedNetwork]
    paths: Required[AllPaths]
    data: Any
    checkpoint: str | None
    class_names: str | None
    images: str | int | None
    split: Required[Annotated[str, Words("train", "val", "test")]]
    n: Required[Count]
    methods: Required[AnyMethods]
    layers: Layers | None
    scores: Required[Scores]
    imputers: Required[Imputers]
    steps: Required[Annotated[int, Field(ge=1, le=1000)]]
    seed: Required[Seed]
    batch_size: Required[Count]
    maps: Required[Annotated[int, Field(ge=0, le=1000)]]
    device: Required[Annotated[str, Words("auto", "cpu", "gpu", "cuda", "mps")]]
    force: Required[bool]


COMMANDS: dict[str, Any] = {
    "train": Train,
    "evaluate": Evaluate,
    "explain": Explain,
    "score": Score,
    "cache": Cache,
    "dashboard": Dashboard,
}
