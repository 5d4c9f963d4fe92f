"""Notes on a job in `.hydra`: its settings, Hydra's own, and what was given on the command line.

Hydra itself would write them before the job is checked, and so change the folder of a run for a job that is refused.
"""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from camlab.runs import ownership, run_folder
from camlab.storage.files import write_atomically


def write_notes(folder: Path, config: DictConfig) -> None:
    """Write the notes on the present job into its folder, and replace earlier ones."""
    hydra: Any = HydraConfig.instance().cfg
    notes = {"config": config, "hydra": hydra, "overrides": hydra.hydra.overrides.task}
    (folder / ownership.HYDRA).mkdir(parents=True, exist_ok=True)
    for name, content in notes.items():
        write_atomically(folder / ownership.HYDRA / f"{name}.yaml", OmegaConf.to_yaml(content), durable=False)


def write_first_notes(folder: Path, config: DictConfig) -> None:
    """Write the notes on the present job if no job has written output into its folder."""
    if not run_folder.is_further_rank() and not ownership.holds_output(folder):
        write_notes(folder, config)
