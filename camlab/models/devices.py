"""The device that a run computes on."""

import platform
import time

import torch

from camlab.errors import UserError


def check_accelerator(accelerator: str, key: str = "trainer.accelerator") -> None:
    """Refuse a GPU that is not there.

    Raises:
        UserError: saying what to give instead.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there["gpu"] = there["cuda"] or there["mps"]
    if not there.get(accelerator, True):
        raise UserError(f"{key}={accelerator}: no such device here. Leave it out, or give cpu.")


def choose_device(name: str = "auto", key: str = "device") -> torch.device:
    """Choose the device to compute on: for `auto` a CUDA GPU if there is one, else MPS, else the CPU.

    Raises:
        UserError: The device is not there.
    """
    check_accelerator(name, key)
    if name not in ("auto", "gpu"):
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """What `result.json` says of the hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}: {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def peak_memory_gb(device: torch.device) -> float | None:
    """The most memory that tensors took on a GPU, in units of 10⁹ bytes; None elsewhere."""
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else None


def settled_time(device: torch.device) -> float:
    """Seconds on a steady clock, once the device has done all that it was given: a wait, so not for every step."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
