"""What the two processes say to each other: JSON objects, each behind its length in four bytes. Never a pickle: what
arrives can name nothing but data.
"""

import asyncio
import json
import socket
import struct
from typing import Any

LENGTH = struct.Struct(">I")
MOST_BYTES = 64 << 20  # of one frame; a prompt of a million tokens takes 7 MB


def frame(message: dict[str, Any]) -> bytes:
    """The bytes of one message."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return LENGTH.pack(len(body)) + body


async def read_frame(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message; None when the other side is gone."""
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return _message(await reader.readexactly(_checked(length)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def receive_frame(connection: socket.socket) -> dict[str, Any] | None:
    """As `read_frame`, for a thread that waits."""
    try:
        head = _exactly(connection, LENGTH.size)
        if head is None:
            return None
        body = _exactly(connection, _checked(LENGTH.unpack(head)[0]))
    except ConnectionError:
        return None
    return None if body is None else _message(body)


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


def _checked(length: int) -> int:
    if length > MOST_BYTES:
        raise ConnectionError(f"a frame of {length:,} bytes")
    return length


def _message(body: bytes) -> dict[str, Any]:
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ConnectionError("a frame that is no object")
    return message
