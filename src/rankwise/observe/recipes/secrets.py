"""Secrets in a configuration are never shown, neither in a record nor in a message."""

import math
import re
from typing import Any

HIDDEN = "(hidden)"
KEY = re.compile(
    r"(^|_)(auth|access|hub|hf|ms|om|api|bot|user)_?token$|api_?key$|secret|passw(or)?d$|credential|webhook|private_key",
    re.IGNORECASE,
)
VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|wandb_v1_\w{20,})"
    r"|(?<=://)[^/@\s:]+:[^/@\s]+(?=@)"
)


def is_secret(key: str, value: Any) -> bool:
    """A key that holds a secret, or a value that looks like one. Flags such as `hf_use_auth_token: true` are none."""
    if value is None or isinstance(value, bool | int | float) or value == "":
        return False
    return bool(KEY.search(key)) or (isinstance(value, str) and bool(VALUE.search(value)))


def hide(key: str, value: Any) -> Any:
    """The value with everything secret in it replaced, and what JSON has no word for (dates, infinity) as text."""
    if isinstance(value, dict):
        return {str(inner): hide(str(inner), held) for inner, held in value.items()}
    if isinstance(value, list | tuple | set):
        return [hide(key, held) for held in value]
    if is_secret(key, value):
        return HIDDEN
    plain = value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else str(value)


def secret_keys(key: str, value: Any) -> list[str]:
    """Dotted keys below `key` that hold secrets."""
    if isinstance(value, dict):
        return [found for inner, held in value.items() for found in secret_keys(f"{key}.{inner}", held)]
    if isinstance(value, list):
        return [found for held in value for found in secret_keys(key, held)]
    return [key] if is_secret(key.rpartition(".")[2], value) else []
