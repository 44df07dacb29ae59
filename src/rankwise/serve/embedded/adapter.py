"""An adapter as the engine holds it: what it changes at each module, in the base's precision and ready to be stacked
with others', whichever method trained it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Change:
    """What an adapter does at one linear layer: y -> gain * y + shift + b (a x), of an input x that was scaled before.

    LoRA has `a` and `b`; DoRA's lengths are a gain, and scale b as well; IA3 has a gain of input or output.

    Attributes:
        a: (rank, in).
        b: (out, rank), the adapter's scale in it.
        gain, shift: (out,).
        gain_in: (in,).
    """

    a: Tensor | None = None
    b: Tensor | None = None
    gain: Tensor | None = None
    shift: Tensor | None = None
    gain_in: Tensor | None = None

    def tensors(self) -> Iterator[Tensor]:
        return (t for t in (self.a, self.b, self.gain, self.shift, self.gain_in) if t is not None)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Change":
        moved = (
            None if t is None else t.to(device, dtype) for t in (self.a, self.b, self.gain, self.shift, self.gain_in)
        )
        return Change(*moved)


@dataclass(frozen=True)
class Inserted:
    """A bottleneck behind a sublayer: h -> h + up(relu(down(h))).

    Attributes:
        down: (width, hidden) and (width,).
        up: (hidden, width) and (hidden,).
    """

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor

    def tensors(self) -> Iterator[Tensor]:
        return iter((self.down, self.down_bias, self.up, self.up_bias))

    def to(self, device: torch.device, dtype: torch.dtype) -> "Inserted":
        return Inserted(*(t.to(device, dtype) for t in self.tensors()))


@dataclass(frozen=True, eq=False)
class Adapter:
    """Everything of one adapter.

    Attributes:
        name: as it was loaded.
        changes: by the name of a linear layer in the base model.
        inserted: by the name of the sublayer that it follows.
        prompt: (virtual tokens, hidden) embeddings before the row's own, or None.
        prefix: for each layer keys and values (heads, virtual tokens, head width) before the row's own; or empty.
    """

    name: str
    changes: Mapping[str, Change] = field(default_factory=dict)
    inserted: Mapping[str, Inserted] = field(default_factory=dict)
    prompt: Tensor | None = None
    prefix: tuple[tuple[Tensor, Tensor], ...] = ()

    @property
    def virtual_tokens(self) -> int:
        """Positions that it takes before a row's own."""
        if self.prompt is not None:
            return self.prompt.shape[0]
        return self.prefix[0][0].shape[1] if self.prefix else 0

    @property
    def bytes(self) -> int:
        """Of its tensors in memory."""
        return sum(t.numel() * t.element_size() for t in self.tensors())

    def tensors(self) -> Iterator[Tensor]:
        for change in self.changes.values():
            yield from change.tensors()
        for part in self.inserted.values():
            yield from part.tensors()
        if self.prompt is not None:
            yield self.prompt
        for pair in self.prefix:
            yield from pair

    def to(self, device: torch.device, dtype: torch.dtype) -> "Adapter":
        """In another precision or place."""
        return Adapter(
            self.name,
            {path: change.to(device, dtype) for path, change in self.changes.items()},
            {path: part.to(device, dtype) for path, part in self.inserted.items()},
            None if self.prompt is None else self.prompt.to(device, dtype),
            tuple((k.to(device, dtype), v.to(device, dtype)) for k, v in self.prefix),
        )
