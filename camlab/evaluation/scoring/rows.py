"""The rows of a table: methods at their layers, and pseudo-methods on the grids of those methods."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from camlab.attribution.doubts import check_grids, doubts_of
from camlab.attribution.explainer import Explainer
from camlab.attribution.methods import title_of
from camlab.errors import UserError, first_line
from camlab.evaluation.scoring.request import Request
from camlab.runs.score_names import METHODS_OF_AUTO, PSEUDO_METHODS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A method, or a pseudo-method, whose maps are scored.

    Attributes:
        name: Name in tables and files, such as `grad_cam`, `grad_cam@features.10` or `random 13×13`.
        title: Name in charts and sentences.
        method: Name of the method or pseudo-method.
        layer: The layer that was asked for; None for the method's default.
        layers: Names of the layers that the maps are computed at; none for pseudo-methods.
        grid: (rows, columns) of the maps.
        doubts: Reasons to doubt the maps, such as that they show one member of an ensemble only.
    """

    name: str
    title: str
    method: str
    layer: str | None
    layers: tuple[str, ...]
    grid: tuple[int, int]
    doubts: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_pseudo(self) -> bool:
        """Whether the maps know nothing of the network."""
        return self.method in PSEUDO_METHODS


def find_rows(
    network: nn.Module, images: Tensor, request: Request, with_masks: bool
) -> tuple[list[Row], dict[str, str]]:
    """Find out which methods apply to a network; pseudo-methods come first, on each grid that a method has.

    Args:
        network: Any classifier that `camlab.heatmaps` takes.
        images: One image or more, the network's input.
        request: What is to be scored. Methods that `auto` tries are left out quietly if they do not apply.
        with_masks: Whether any picture has a mask, which is then a pseudo-method.

    Returns:
        The rows, and the reason for each method that was asked for and does not apply.

    Raises:
        UserError: No method applies; the message gives the reason for the first.
    """
    found: list[Row] = []
    refused: dict[str, str] = {}
    for method in METHODS_OF_AUTO if request.methods is None else dict.fromkeys(request.methods):
        for layer in request.layers or (None,):
            name = f"{method}@{layer}" if len(request.layers) > 1 else method
            try:
                found.append(_row(network, images, name, method, layer))
            except UserError as error:
                refused[name] = first_line(error)
    if not found:
        raise UserError(f"No method can be scored. {next(iter(refused.values()))}")
    grids = list(dict.fromkeys(row.grid for row in found))
    pseudo = [row for grid in grids for row in _pseudo_rows(grid, len(grids) > 1, with_masks)]
    return [*pseudo, *found], refused if request.methods is not None else {}


def _row(network: nn.Module, images: Tensor, name: str, method: str, layer: str | None) -> Row:
    explainer = Explainer(network, layer)
    explanation = explainer.explain(images[:1], (method,))
    check_grids(explanation, explainer.survey(images))
    (maps,) = explanation.maps[method]
    grid, doubts = (maps.shape[2], maps.shape[3]), doubts_of(explanation, explainer, images[:1])
    return Row(name, title_of(name), method, layer, explanation.layers[method], grid, tuple(doubts))


def _pseudo_rows(grid: tuple[int, int], of_many: bool, with_masks: bool) -> Iterable[Row]:
    size = f" {grid[0]}×{grid[1]}" if of_many else ""
    for method in PSEUDO_METHODS:
        if method != "mask" or with_masks:
            yield Row(f"{method}{size}", f"{method}{size}", method, None, (), grid)
