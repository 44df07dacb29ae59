"""lm-evaluation-harness's model class around one that is in memory. Needs the extra `eval` when it is imported."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

from lm_eval.models.huggingface import HFLM
from torch import nn

from rankwise.model.likelihood import Autocast
from rankwise.model.load import DTYPES

Told = Callable[[int, int], None]


class Counter:
    """Takes the place of the harness's cache of answers, which it tells of every answer: here they are counted."""

    def __init__(self, told: Told) -> None:
        self.told, self.done, self.total = told, 0, 0

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        self.done += 1
        self.told(min(self.done, self.total), self.total)


class ToldModel(HFLM):  # type: ignore[misc]
    """HFLM that tells how far it is, in the place of its own bars.

    Args:
        model: a causal language model of transformers, with a method of PEFT or ours on it or not.
        tokenizer: transformers' own.
        batch_size: sequences in one forward pass.
        autocast: bf16 arithmetic, or that of the weights.
        told: (done, total) requests of one kind.
        aloud: standard error, where `told` may write while the harness's own is dropped.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, batch_size: int, autocast: Autocast, *, told: Told, aloud: Any
    ) -> None:
        mixed = None if autocast is None else DTYPES[autocast]
        with _ties_kept(model):
            super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, mixed_precision_dtype=mixed)
        self.aloud, self.counter = aloud, Counter(told)
        self.set_cache_hook(self.counter)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
        with self._counted(requests):
            return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
        with self._counted(requests):
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
        with self._counted(requests):
            return super().generate_until(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None) -> Any:
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    @contextmanager
    def _counted(self, requests: list[Any]) -> Iterator[None]:
        self.counter.done, self.counter.total = 0, len(requests)
        with redirect_stderr(self.aloud):
            yield


@contextmanager
def _ties_kept(model: nn.Module) -> Iterator[None]:
    """HFLM ties the weights of a model that it is given. One of ours is tied as it should be; where an adapter sits on
    the embedding, transformers does not find what to tie.
    """
    model.tie_weights = lambda *_, **__: None  # type: ignore[assignment]
    try:
        yield
    finally:
        del model.tie_weights
