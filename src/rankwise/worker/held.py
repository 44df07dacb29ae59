"""A process that ends with the one that started it."""

import os
import threading


def die_with_parent(stop_signal: threading.Event) -> None:
    """The launcher holds the other end of standard input: when it closes, the launcher is gone and so must we be. What
    it writes asks to stop; one of several processes reads it, and they agree on it.
    """
    while os.read(0, 1024):  # not sys.stdin: a thread that waits in its buffer would abort the interpreter's exit
        stop_signal.set()
    os._exit(1)
