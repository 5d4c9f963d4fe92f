"""What every forked command finds ready: the whole stack, imported and used once. Preloaded by `forked_command`."""

import atexit
import contextlib
import gc
import io
import platform

import kill_points  # noqa: F401  (the sites at which a run is killed)
import matplotlib.pyplot  # noqa: F401
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from camlab import cache, evaluate, explain, summary, train  # noqa: F401
from camlab.command_line.conf import conf_dir
from camlab.drawing import explain_pictures  # noqa: F401
from camlab.evaluation import confusion_plot, report, testing  # noqa: F401
from camlab.models import catalog, devices  # noqa: F401
from camlab.models.cam_net import CamNet
from camlab.runs.provenance import provenance
from camlab.training import checkpoint  # noqa: F401
from camlab.training.callbacks import loss_guard, progress  # noqa: F401


def warm_up() -> None:
    """Fill the caches of Hydra's parsers and plugins, of torch's kernels, and the git commit."""
    torch.set_num_threads(1)  # a forked process has no threads of OpenMP
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for command in ("train", "evaluate", "explain", "cache"):
            with contextlib.redirect_stderr(io.StringIO()):
                compose(command, ["hydra.run.dir='a b'", "+hydra.x=[1,{a:1}]"], return_hydra_config=True)
    GlobalHydra.instance().clear()
    CamNet("alexnet", num_classes=2, weights=None)(torch.zeros(1, 3, 64, 64)).sum().backward()
    confusion_plot.draw_confusion(np.eye(2, dtype=int), ("a", "b"))
    platform.processor()  # asks uname, once
    provenance()  # so that no command asks git, which a test would take for the work of a file
    gc.collect()
    gc.freeze()  # forks share the pages of what is here
    atexit.register(gc.unfreeze)  # else nanobind tells of leaks at the end


warm_up()
