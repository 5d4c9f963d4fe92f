"""Schema of the section `trainer`: names, types and ranges of Lightning's arguments. Imports nothing heavy."""

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this version before Python 3.12

from camlab.command_line.fields import Count, Instead, Natural, NotNegative, Positive, Words, section

PRECISIONS = (
    "32-true", "32", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "64",
    "transformer-engine", "transformer-engine-float16", "16", "bf16",
)  # fmt: skip

STRATEGIES = (
    "auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "ddp_spawn", "ddp_fork",
    "ddp_notebook", "fsdp", "fsdp_cpu_offload", "deepspeed", "deepspeed_stage_1", "deepspeed_stage_2",
    "deepspeed_stage_3", "single_device",
)  # fmt: skip


@section
class Trainer(TypedDict, total=False):
    """Arguments of lightning.Trainer (2.6). Those of type `Any` are checked by Lightning."""

    accelerator: Annotated[str, Words("auto", "cpu", "gpu", "cuda", "mps", "tpu")]
    strategy: Annotated[str, Words(*STRATEGIES)] | dict[str, Any]
    devices: Any
    num_nodes: Count
    precision: Annotated[str, Words(*PRECISIONS, 16, 32, 64)] | None
    logger: Annotated[Any, Instead("choose with logger=")]
    callbacks: Annotated[Any, Instead("give +callbacks.NAME._target_=CLASS")]
    fast_dev_run: Any
    max_epochs: Count
    min_epochs: Natural | None
    max_steps: Annotated[int, Field(ge=-1)]
    min_steps: Natural | None
    max_time: Any
    limit_train_batches: Positive | None
    limit_val_batches: NotNegative | None
    limit_test_batches: NotNegative | None
    limit_predict_batches: NotNegative | None
    overfit_batches: NotNegative
    val_check_interval: Positive | None
    check_val_every_n_epoch: Count | None
    num_sanity_val_steps: Annotated[int, Field(ge=-1)] | None
    log_every_n_steps: Natural | None
    enable_checkpointing: bool | None
    enable_progress_bar: Annotated[Any, Instead("it is shown on a terminal only")]
    enable_model_summary: bool | None
    accumulate_grad_batches: Count
    gradient_clip_val: NotNegative | None
    gradient_clip_algorithm: Annotated[str, Words("norm", "value")] | None
    deterministic: Any
    benchmark: bool | None
    inference_mode: bool
    use_distributed_sampler: bool
    profiler: Annotated[str, Words("simple", "advanced", "pytorch")] | None
    detect_anomaly: bool
    barebones: bool
    plugins: Any
    sync_batchnorm: bool
    reload_dataloaders_every_n_epochs: Natural
    default_root_dir: Annotated[Any, Instead("give out=FOLDER")]
    enable_autolog_hparams: bool
    model_registry: Any
