"""The device that a run computes on."""

import platform
import time

import torch

from camlab.errors import UserError

_GPUS = ("cuda", "mps")  # the best first


def check_accelerator(accelerator: str, key: str = "trainer.accelerator") -> None:
    """Refuse a GPU that this machine does not have.

    Args:
        accelerator: `gpu`, `cuda`, `mps`, or any other device, which is not checked.
        key: The setting that named it, for messages.

    Raises:
        UserError: There is no such GPU.

    Example:
        >>> check_accelerator("cpu")
    """
    if accelerator in ("gpu", *_GPUS) and not _gpus_here(accelerator):
        raise UserError(f"{key}={accelerator}: no such device here. Leave it out, or give cpu.")


def choose_device(name: str = "auto", key: str = "device") -> torch.device:
    """Choose the device that a network runs on.

    Args:
        name: `auto` for the best available one (a CUDA GPU, else MPS, else the CPU), `gpu` for the best GPU, or `cpu`,
            `cuda` or `mps`.
        key: The setting that named it, for messages.

    Raises:
        UserError: There is no such device.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    check_accelerator(name, key)
    if name in ("auto", "gpu"):
        return torch.device((*_gpus_here("gpu"), "cpu")[0])
    return torch.device(name)


def _gpus_here(name: str) -> list[str]:
    """The available kinds of GPU that a name stands for, the best first; `gpu` stands for all kinds."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [kind for kind in _GPUS if there[kind] and name in (kind, "gpu")]


def device_name(device: torch.device) -> str:
    """Name of the hardware for `result.json`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}: {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def peak_memory_gb(device: torch.device) -> float | None:
    """Largest amount of memory that tensors took on a GPU, in units of 10⁹ bytes; None for other devices."""
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else None


def settled_time(device: torch.device) -> float:
    """Return the time of a steady clock, in seconds, after the device has finished its work.

    The call waits for the device, so it must not be made at every step.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
