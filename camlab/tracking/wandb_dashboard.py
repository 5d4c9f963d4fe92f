"""A workspace of W&B for a project of camlab's runs: which panels it has, and how it is made or renewed."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from camlab.errors import UserError
from camlab.tracking.panels import CURVES, SCORES
from camlab.tracking.wandb_environment import check_base_url, has_key
from camlab.tracking.wandb_segments import one_line

VIEW = "camlab"  # the view's name in its address, which stays the same when the view is renewed
_TIMEOUT = 20  # seconds for a request


def publish(project: str, entity: str | None) -> str:
    """Make the workspace of a project or, if camlab has made it before, renew it at the same address.

    What was set in the browser for a section stays, as do sections that others have added.

    Args:
        project: Name of the project.
        entity: User or team; None for the default of the account.

    Returns:
        The address of the workspace.

    Raises:
        UserError: wandb-workspaces is not installed, there is no API key, the project does not exist, or W&B cannot be
            reached or refuses.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library uses validators that pydantic deprecates
            import wandb_workspaces.workspaces  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError("wandb-workspaces is not installed. Run: pip install 'camlab[dashboard]'.") from error
    check_base_url()
    if not has_key():
        raise UserError("W&B: no API key. Run: wandb login, or set WANDB_API_KEY.")
    try:
        return _publish(project, entity)
    except UserError:
        raise
    except Exception as error:  # the client raises errors of many kinds
        raise UserError(f"W&B: {_reason(error)}. The dashboard was not made; try again later.") from error


def _publish(project: str, entity: str | None) -> str:
    import wandb
    import wandb_workspaces.workspaces as ws

    wandb.setup(wandb.Settings(silent=True))
    api = wandb.Api(timeout=_TIMEOUT)
    owner = entity or api.default_entity
    if not owner:
        raise UserError("W&B: the account has no default entity. Give one with entity=NAME.")
    place = str(api.project(project, owner).url).removesuffix("/workspace")
    try:
        view = ws.Workspace.from_url(f"{place}?nw={VIEW}")
        view.sections = _renewed(view.sections, _sections())
    except ValueError as error:
        if str(error).startswith("Project "):
            raise UserError(
                f"project={project}: {owner} has no such project in W&B, or the key may not see it. Train with"
                " logger=wandb first, or give entity=NAME."
            ) from error
        if not str(error).startswith("Workspace "):
            raise
        view = ws.Workspace(owner, project, "camlab", _sections(), ws.WorkspaceSettings(x_axis="epoch"))
        view._internal_name = f"nw-{VIEW}-v"  # by itself, the library gives every new view another name
    return str(view.save().url)


def _reason(error: Exception) -> str:
    told = one_line(error).rstrip(".")
    return f"no answer from the server within {_TIMEOUT} s" if "did not respond in time" in told else told


def _renewed(before: list[Any], sections: list[Any]) -> list[Any]:
    """Camlab's sections with the settings that they have got in the browser, then the sections of others."""
    known = {section.name: section for section in before}
    for section in sections:
        if old := known.pop(section.name, None):
            section.is_open, section.pinned = old.is_open, old.pinned
            section.panel_settings, section.layout_settings = old.panel_settings, old.layout_settings
    return [*sections, *known.values()]


def _sections() -> list[Any]:
    import wandb_workspaces.workspaces as ws

    return [
        ws.Section("Curves", _lines(CURVES), is_open=True),
        ws.Section("Heatmaps", _heatmaps(), is_open=True),
        ws.Section("Scores", _lines(SCORES), is_open=True),
        ws.Section("Sweep", _sweep(), is_open=True),
        ws.Section("Runs compared", _comparison()),
    ]


def _lines(curves: Mapping[str, Sequence[str]]) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    return [wr.LinePlot(title=title, x="epoch", y=list(keys)) for title, keys in curves.items()]


def _heatmaps() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    whole = wr.Layout(w=24, h=16)
    return [
        wr.MediaBrowser(
            title="Heatmaps by epoch",
            media_keys=["heatmaps/probe"],
            mode="gallery",
            gallery_axis="step",
            num_columns=4,
            layout=whole,
        ),
        wr.MediaBrowser(title="Every epoch, class and method", media_keys=["heatmaps/viewer"], layout=whole),
    ]


def _sweep() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    rate, best = wr.Config("optimizer.lr"), wr.SummaryMetric("val/best_acc")
    columns = [
        wr.ParallelCoordinatesPlotColumn(wr.Config("arch.backbone"), "backbone"),
        wr.ParallelCoordinatesPlotColumn(wr.Config("mode"), "mode"),
        wr.ParallelCoordinatesPlotColumn(rate, "learning rate", log=True),
        wr.ParallelCoordinatesPlotColumn(wr.Config("data.image_size"), "image size"),
        wr.ParallelCoordinatesPlotColumn(best, "best val/acc"),
    ]
    return [
        wr.ParallelCoordinatesPlot(columns=columns, title="Settings and accuracy", layout=wr.Layout(w=16, h=8)),
        wr.ScatterPlot(title="Learning rate against accuracy", x=rate, y=best, log_x=True),
    ]


def _comparison() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.BarPlot(title="Test accuracy", metrics=["test/acc"]),
        wr.RunComparer(diff_only="split", layout=wr.Layout(w=16, h=9)),
    ]
