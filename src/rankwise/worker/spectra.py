"""The spectra of the model that trains, taken after validations for as long as they cost little."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from accelerate.utils.memory import should_reduce_batch_size
from safetensors import SafetensorError

from rankwise.errors import ModelError
from rankwise.methods import METHODS
from rankwise.model.adapterproducts import live_products
from rankwise.model.products import Product
from rankwise.records import ModuleSpectrum, Note, Plan, SpectrumSeen, TrainConfig
from rankwise.store import now
from rankwise.train.engines.engine import Engine
from rankwise.watch.directions import Base
from rankwise.watch.spectrum import directions_under, product_spectrum, whole_spectrum

# Of the time of a run. An adapter's first and last spectra are always taken: they take as long as a few steps.
SHARE = 0.01
SHORTEST = 0.1  # seconds of that share, below which no direction of the base is computed


class Spectra:
    """What the first process says of the matrices that train. Intruders and norm ratios need the base's directions:
    computed within half the share, unless they are remembered, else left to `rankwise watch`.

    Full fine-tuning is looked at where the whole model is in this process and the share has room for it.
    """

    def __init__(self, plan: Plan, config: TrainConfig, engine: Engine):
        self.engine, self.max_steps = engine, config.max_steps
        self.weights = METHODS[config.method].trains == "weights"
        chosen = plan.chosen()
        planned = chosen.time.train_seconds if chosen else None
        self.allowed = SHARE * (planned or 0.0)
        self.folder = plan.facts.model.path
        self.began, self.spent, self.latest = time.monotonic(), 0.0, 0.0
        self._base: Base | None = None
        self._tried = False

    def after(self, step: int) -> Iterator[SpectrumSeen | Note]:
        """The spectra after a validation; nothing before the first step, where there are none, and while those before
        have cost their share. Every process must call it: where parameters are split, all of them gather. Where the
        memory does not reach for them the run goes on, and says so.
        """
        group = self.engine.group
        if step == 0 or (self.weights and self.engine.splits) or not group.from_first(self._due(step)):
            return
        began = time.monotonic()
        state = self.engine.full_state(trained_only=True) if self.engine.splits else None
        modules: tuple[ModuleSpectrum, ...] = ()
        try:
            modules = self._modules(state, began) if group.first else ()
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            yield Note(
                time=now(), text=f"no spectrum at step {step}: out of memory ({str(error).strip() or 'MemoryError'})"
            )
        self.latest = time.monotonic() - began
        self.spent += self.latest
        if modules:
            yield SpectrumSeen(time=now(), step=step, modules=modules, seconds=self.latest)

    def _due(self, step: int) -> bool:
        if self.weights and self.spent > 0 and self.latest > self.allowed:
            return False
        if not self.weights and step == self.max_steps:
            return True
        return self.spent + self.latest <= SHARE * (time.monotonic() - self.began)

    def _modules(self, state: Any, began: float) -> tuple[ModuleSpectrum, ...]:
        if self.weights:
            return self._differences(began)
        products = list(live_products(self.engine.bare, state))
        base = self._known_base(products, began)
        return tuple(product_spectrum(product, directions_under(product, base)) for product in products)

    def _known_base(self, products: Sequence[Product], began: float) -> Base | None:
        """The base where all directions that are needed are remembered or can be computed in time; tried once."""
        if not self._tried:
            self._tried = True
            # A cache that cannot be written, or a base that is stored in another way, is no reason to stop a run.
            with suppress(ModelError, SafetensorError, OSError):
                base = Base(self.folder)
                if all(self._ready(base, base.find(product.module), began) for product in products):
                    self._base = base
        return self._base

    def _ready(self, base: Base, name: str | None, began: float) -> bool:
        """Are the directions of a weight remembered, after they were computed if need be and there is time?"""
        if name is None or base.has_directions(name):
            return True
        if self.allowed < SHORTEST or time.monotonic() - began > self.allowed / 2:
            return False
        base.directions(name)
        return True

    def _differences(self, began: float) -> tuple[ModuleSpectrum, ...]:
        """Of every matrix, or nothing where that takes longer than its share."""
        found = []
        base = Base(self.folder)
        for name, parameter in self.engine.bare.named_parameters():
            if time.monotonic() - began > self.allowed:
                return ()
            if parameter.dim() > 1:
                found.append(whole_spectrum(name.removesuffix(".weight"), parameter.detach().cpu(), base))
        return tuple(seen for seen in found if seen)


def _is_out_of_memory(error: Exception) -> bool:
    """Of torch's allocators, of Python, or of a file that the system will not map (ENOMEM, in words alone)."""
    if isinstance(error, MemoryError) or "Cannot allocate memory" in str(error):
        return True
    return bool(should_reduce_batch_size(error))
