"""Command that makes a workspace in W&B for a project of camlab's runs: `python -m camlab.dashboard project=NAME`."""

import logging

from omegaconf import DictConfig

from camlab.command_line.launch import launch

log = logging.getLogger(__name__)


def main() -> None:
    """Run the command `camlab-dashboard`."""
    launch(dashboard, "dashboard")


def dashboard(config: DictConfig) -> None:
    """Make the workspace or renew it, and say where it is and what can only be set in the browser."""
    from camlab.tracking.wandb_dashboard import publish

    address = publish(config.project, config.entity)
    log.info("Dashboard: %s", address)
    log.info(
        "In its section Heatmaps, set 'Sync slider by key' to epoch once; only the browser can do so, and it lasts."
    )


if __name__ == "__main__":
    main()
