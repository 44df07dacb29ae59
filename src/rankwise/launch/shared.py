"""The folder that all nodes of a cluster see at the same path."""

from pathlib import Path

from rankwise.errors import UsageError
from rankwise.launch.order import Order


def shared_folder(order: Order) -> Path:
    """What --shared says, else the working folder. Raises UsageError."""
    folder = Path(order.wishes.shared).expanduser() if order.wishes.shared else Path.cwd()
    if not folder.is_absolute():
        raise UsageError(
            f"--shared {folder}: not an absolute path",
            expected="a folder that all nodes see at one path, such as /scratch/me",
        )
    return folder
