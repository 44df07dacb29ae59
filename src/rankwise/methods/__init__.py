"""The list of methods. To add one: a file beside this one, a line here, and the conformance suite runs over it."""

from rankwise.methods.base import Method, targeted
from rankwise.methods.full import FULL
from rankwise.methods.lora import LORA
from rankwise.methods.qlora import NF4_BITS, QLORA

METHODS: dict[str, Method] = {m.name: m for m in (FULL, LORA, QLORA)}

__all__ = ["METHODS", "NF4_BITS", "Method", "targeted"]
