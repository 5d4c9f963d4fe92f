"""What the environment says about W&B: the mode, the address of its server, and whether there is a key."""

import netrc
import os
from urllib.parse import urlparse

from camlab.errors import UserError

_BASE_URL = "https://api.wandb.ai"
_MODES = ("online", "offline", "disabled", "shared")
_OLD_MODES = {"run": "online", "dryrun": "offline"}  # old names that W&B still accepts


def mode_of_environment() -> str | None:
    """The mode that `WANDB_MODE` asks for, by its current name; None if the variable is not set."""
    if (given := os.environ.get("WANDB_MODE")) is None:
        return None
    if (mode := _OLD_MODES.get(given, given)) not in _MODES:
        raise UserError(f"WANDB_MODE={given}: unknown value. Choose from {', '.join(_MODES)}, or unset it.")
    return mode


def check_base_url() -> None:
    """Refuse an address in `WANDB_BASE_URL` that W&B would refuse, even offline.

    Raises:
        UserError: The variable does not hold such an address.
    """
    given = os.environ.get("WANDB_BASE_URL", _BASE_URL)
    try:
        parts = urlparse(given)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise UserError(f"WANDB_BASE_URL={given}: must be an address such as {_BASE_URL}. Correct it, or unset it.")


def has_key() -> bool:
    """Whether W&B would find credentials without asking: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", _BASE_URL)).hostname or ""
    candidates = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    for path in (os.path.expanduser(c) for c in candidates if c):
        try:
            if netrc.netrc(path).authenticators(host):
                return True
        except (OSError, ValueError, netrc.NetrcParseError):  # missing, not UTF-8, damaged
            continue
    return False
