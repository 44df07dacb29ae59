"""The lists of methods.

METHODS are those that training can carry out. TUNERS are those that a step can be priced for: full fine-tuning,
bottleneck adapters, and PEFT's tuners by their PEFT name in lower case. To add one: a line in the file of its family,
and the conformance suite runs over it. `tuner` also finds a tuner of a newer PEFT that has no line here yet.
"""

from collections.abc import Iterable
from difflib import get_close_matches

from rankwise.errors import UsageError
from rankwise.methods.base import AdapterOptions, Method, Tuner, targeted
from rankwise.methods.bottleneck import BOTTLENECK, BOTTLENECK_TUNER
from rankwise.methods.full import FULL, FULL_TUNER
from rankwise.methods.light import IA3, LIGHT_TUNERS
from rankwise.methods.lora import DORA, LORA, LORA_TUNERS, PISSA, RSLORA
from rankwise.methods.prompt import P_TUNING, PREFIX, PROMPT, PROMPT_TUNERS
from rankwise.methods.qlora import LORA_8BIT, NF4_BITS, QLORA, QUANTISED_TUNERS

METHODS: dict[str, Method] = {
    m.name: m for m in (FULL, LORA, QLORA, LORA_8BIT, RSLORA, DORA, PISSA, IA3, PROMPT, PREFIX, P_TUNING, BOTTLENECK)
}
TUNERS: dict[str, Tuner] = {
    t.name: t for t in (FULL_TUNER, *LORA_TUNERS, *QUANTISED_TUNERS, *LIGHT_TUNERS, *PROMPT_TUNERS, BOTTLENECK_TUNER)
}
# PEFT's types of the adapters that training makes: the embedded engine answers rows of all of them in one batch.
SERVED: tuple[str, ...] = tuple(
    sorted({str(t) for m in METHODS.values() if m.trains == "adapter" and (t := TUNERS[m.name].peft_type) is not None})
)
NOT_TRACED: dict[str, str] = {t.name: t.untraceable for t in TUNERS.values() if t.untraceable}


def tuner(name: str, peft_types: Iterable[str] = ()) -> Tuner:
    """The tuner of a `--method` name; `peft_types` are the keys of the installed PEFT's list, where it is imported.

    Raises:
        UsageError: no such method.
    """
    if name in TUNERS:
        return TUNERS[name]
    if name.upper() in peft_types:
        return Tuner(name, name.upper())
    near = get_close_matches(name, TUNERS, n=1)
    raise UsageError(
        f"there is no method {name}",
        expected=f"one of {', '.join(TUNERS)}",
        fix=f"did you mean {near[0]}?" if near else "",
    )


__all__ = [
    "METHODS",
    "NF4_BITS",
    "NOT_TRACED",
    "SERVED",
    "TUNERS",
    "AdapterOptions",
    "Method",
    "Tuner",
    "targeted",
    "tuner",
]
