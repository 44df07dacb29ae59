"""`python -m rankwise.serve.embedded.child FD`: the process that holds the model. It is told what to do over a socket,
and ends when the other end of it closes, so that it never outlives its parent.
"""

import os
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rankwise.errors import ModelError, RankwiseError
from rankwise.serve.embedded.frames import frame, receive_frame
from rankwise.serve.embedded.settings import Settings
from rankwise.serve.engine import AdapterRefused


class Line:
    """The socket to the parent: messages that came in wait in `inbox`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._writing = connection, threading.Lock()
        self.inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while (message := receive_frame(self._connection)) is not None:
            self.inbox.put(message)
        os._exit(0)  # the parent is gone, and nothing is left to be tidied

    def say(self, **message: Any) -> None:
        try:
            with self._writing:
                self._connection.sendall(frame(message))
        except OSError:
            os._exit(0)


class Server:
    """The loop: take what was asked, give the batch a turn, tell what came of it."""

    def __init__(self, line: Line, settings: Settings) -> None:
        import torch

        from rankwise.model.load import load_base
        from rankwise.serve.embedded.batch import Batch
        from rankwise.serve.embedded.mixed import lay_across

        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._line = line
        self._model = load_base(
            settings.base, dtype=settings.precision, four_bit=settings.four_bit, device=settings.device
        )
        if self._model._is_stateful:
            raise ModelError(
                f"{type(self._model).__name__} keeps a state, which rows that come and go cannot share",
                expected="a model that attends to keys and values of all tokens",
                fix="serve it by vLLM: --engine vllm",
            )
        self._model.requires_grad_(False)
        lay_across(self._model)
        self._batch = Batch(self._model, settings)
        self._adapters: dict[str, Any] = {}
        self._does: dict[str, Callable[..., None]] = {
            "generate": self._generate,
            "cancel": self._cancel,
            "load": self._load,
            "enter": self._enter,
            "unload": self._unload,
        }
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="adapters")

    def run(self) -> None:
        """For ever."""
        self._line.say(say="ready")
        while True:
            self._take(wait=self._batch.idle)
            emitted = self._batch.turn()
            if emitted:
                running, waiting = self._batch.counts
                pieces = [_piece(e) for e in emitted]
                self._line.say(say="pieces", pieces=pieces, running=running, waiting=waiting)

    def _take(self, wait: bool) -> None:
        """What was asked since the last turn; waits for something where there is nothing else to do."""
        while True:
            try:
                message = self._line.inbox.get(block=wait)
            except queue.Empty:
                return
            wait = False
            self._does[message.pop("do")](**message)

    def _generate(self, key: int, adapter: str | None, **asked: Any) -> None:
        try:
            self._batch.waiting.append(self._row(key, adapter, **asked))
        except RankwiseError as error:
            self._line.say(say="rejected", key=key, **_sentences(error))

    def _row(
        self,
        key: int,
        adapter: str | None,
        prompt: list[int],
        max_new_tokens: int,
        stop_token_ids: list[int],
        **draw: Any,
    ) -> Any:
        from rankwise.serve.embedded.batch import Row
        from rankwise.serve.embedded.sampling import Draw

        if adapter is not None and adapter not in self._adapters:
            raise RankwiseError(f"adapter {adapter} is not loaded", fix="load it, then ask again")
        loaded = self._adapters[adapter] if adapter is not None else None
        row = Row(key, loaded, tuple(prompt), max_new_tokens, frozenset(stop_token_ids), Draw(**draw))
        config = self._model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None)
        if not prompt or min(prompt) < 0 or max(prompt) >= config.vocab_size or max_new_tokens < 1:
            raise RankwiseError("a prompt without tokens, with ids beyond the vocabulary, or no room for an answer")
        if positions is not None and row.most > positions:
            raise RankwiseError(
                f"prompt and answer take {row.most:,} positions, and the model has {positions:,}",
                fix="shorten the prompt or the answer",
            )
        if not self._batch.fits(row):
            need = row.most * self._batch.token_bytes
            raise RankwiseError(f"{need:,} bytes of keys and values are needed, more than the server's limit for all")
        return row

    def _cancel(self, key: int) -> None:
        self._batch.cancel(key)

    def _load(self, name: str, folder: str) -> None:
        """Files are read in a thread; between two turns the adapter is only entered."""
        if name in self._adapters:
            self._line.say(say="loaded", name=name, bytes=self._adapters[name].bytes)
        else:
            self._reading.submit(self._read, name, Path(folder))

    def _read(self, name: str, folder: Path) -> None:
        from rankwise.serve.embedded.read import read_adapter

        try:
            adapter = read_adapter(name, folder, self._model)
        except AdapterRefused as error:
            self._line.say(say="refused", name=name, **_sentences(error))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        else:
            self._line.inbox.put({"do": "enter", "name": name, "adapter": adapter})

    def _enter(self, name: str, adapter: Any) -> None:
        self._adapters[name] = adapter
        self._line.say(say="loaded", name=name, bytes=adapter.bytes)

    def _unload(self, name: str) -> None:
        if (adapter := self._adapters.pop(name, None)) is not None:
            self._batch.forget(adapter)
        self._line.say(say="unloaded", name=name)


def _piece(emitted: Any) -> list[Any]:
    chosen = emitted.chosen
    if chosen is None:
        return [emitted.key, None, None, [], emitted.finish]
    return [emitted.key, chosen.token, chosen.logprob, chosen.likely, emitted.finish]


def _sentences(error: RankwiseError) -> dict[str, str]:
    return {"kind": type(error).__name__, "what": error.what, "expected": error.expected, "fix": error.fix}


def main() -> None:
    """Wait for the settings, load, serve."""
    line = Line(socket.socket(fileno=int(sys.argv[1])))
    told = line.inbox.get()
    try:
        server = Server(line, Settings(**{**told, "base": Path(told["base"])}))
    except RankwiseError as error:
        line.say(say="failed", **_sentences(error))
        sys.exit(1)
    server.run()


if __name__ == "__main__":
    main()
