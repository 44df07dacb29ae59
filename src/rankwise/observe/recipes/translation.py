"""What a configuration means, tool by tool: settings under their Hugging Face names, and the facts of the step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rankwise.errors import RecipeError
from rankwise.observe.recipes.reading import Launch, Source
from rankwise.observe.recipes.schema import Schema
from rankwise.observe.recipes.secrets import hide
from rankwise.records.recipe import Dataset, Setting

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
DTYPES = {
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "fp16": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "fp32": "fp32",
    "auto": "bf16",
}
KERNELS = {
    "eager": "eager",
    "disabled": "eager",
    "sdpa": "sdpa",
    "auto": "sdpa",
    "fa2": "flash",
    "fa3": "flash",
    "flash_attention": "flash",
    "flash_attention_2": "flash",
    "flash_attention_3": "flash",
}
# What PEFT adapts where no target is named (peft 0.21 TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING).
PEFT_TARGETS = {
    **dict.fromkeys(
        ("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "opt", "gptj", "gpt_neo"),
        ("q_proj", "v_proj"),
    ),
    **dict.fromkeys(("bloom", "gpt_neox", "falcon", "chatglm"), ("query_key_value",)),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), ("c_attn",)),
    "stablelm": ("q_proj", "v_proj"),
    "codegen": ("qkv_proj",),
    "mpt": ("Wqkv",),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
}


@dataclass
class Step:
    """The training step behind the settings; what each tool makes of its own keys.

    Attributes:
        adapter: `full`, or PEFT's name for what is trained. quantised: nf4, int8, gptq, or another storage by name.
        weights: dtype of the loaded weights. autocast: arithmetic where a trainer's flag asks for it.
        isolated: packed rows cannot see each other. None: nothing is packed.
        cut: what happens to a row that is too long.
        prompt_trained: None: nobody says.
    """

    adapter: str = "full"
    quantised: str | None = None
    dora: bool = False
    rslora: bool = False
    targets: str | tuple[str, ...] | None = None
    weights: str = "fp32"
    autocast: str = "none"
    adapter_dtype: str = "fp32"
    kbit_upcast: bool = False
    double_quant: bool = True
    attn: str = "sdpa"
    loss: str = "full-logits"
    packing: bool = False
    isolated: bool | None = None
    cut: str = "truncate"
    prompt_trained: bool | None = None
    goal: str | None = None
    launch: Launch = field(default_factory=Launch)
    datasets: tuple[Dataset, ...] = ()
    assumptions: list[str] = field(default_factory=list)
    not_priced: list[str] = field(default_factory=list)


class Translation:
    """Takes settings out of a source under their Hugging Face names, remembering where each stands."""

    def __init__(self, source: Source, schema: Schema) -> None:
        self.source, self.schema = source, schema
        self.settings: dict[str, Setting] = {}
        self.step = Step()

    def said(self, *keys: str) -> str | None:
        """The first of these keys that the source gives a value."""
        return next((k for k in keys if k in self.source.said and self.source.said[k].value is not None), None)

    def raw(self, key: str) -> Any:
        """The value as given; None where it is not."""
        found = self.source.said.get(key)
        return None if found is None else found.value

    def take(self, name: str, *keys: str, kind: Callable[[Any], Any], default: Any = None) -> Any:
        """Read a setting; the tool's default where nothing is said. Raises RecipeError for a value of another kind."""
        key = self.said(*(keys or (name,)))
        if key is None:
            first = (keys or (name,))[0]
            value = self.schema.defaults.get(first, default)
            if value is not None:
                self.put(name, value, key=first)
            return value
        found = self.source.said[key]
        try:
            value = kind(found.value)
        except (ValueError, TypeError, OverflowError):
            raise RecipeError(
                f"{self.source.where(key)} is {hide(key, found.value)!r}", expected=EXPECTED.get(kind, "another value")
            ) from None
        self.put(name, value, key=key)
        return value

    def put(self, name: str, value: Any, *, key: str, inner: str | None = None) -> None:
        """Record a value under its Hugging Face name, as standing where `key` stands, or a key inside of it."""
        found = self.source.said.get(key)
        line = self.source.inner.get((key, inner)) if inner else None
        there = found is not None and found.value is not None
        self.settings[name] = Setting(
            name=name,
            key=f"{key}.{inner}" if inner else key,
            value=hide(key, value),
            line=line if line is not None else found.line if found is not None and there else None,
            origin=found.origin if found is not None and there else "default",
        )

    def value(self, name: str) -> Any:
        """A setting that was taken."""
        return self.settings[name].value if name in self.settings else None

    def unpriced(self, key: str, why: str) -> None:
        """This run cannot be priced as it is, because of a key."""
        self.step.not_priced.append(f"{key}: {why}")

    def unmodelled(self, table: dict[str, str]) -> None:
        """Keys that change the step and are not modelled, where they are set and not off."""
        for key, why in table.items():
            value = self.raw(key)
            if value not in (None, False, "", 0, [], {}) and str(value).lower() not in FALSE:
                self.unpriced(key, why)


def text(value: Any) -> str:
    if isinstance(value, dict | list):
        raise ValueError
    return str(value)


def whole(value: Any) -> int:
    """A whole number; `1e3` and "8" are some, true is none."""
    if isinstance(value, bool) or float(value) != int(float(value)):
        raise ValueError
    return int(float(value))


def positive(value: Any) -> int:
    found = whole(value)
    if found < 1:
        raise ValueError
    return found


def number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError
    found = float(value)
    if found != found or found in (float("inf"), float("-inf")):
        raise ValueError
    return found


def rate(value: Any) -> float:
    """A learning rate is above 0."""
    found = number(value)
    if found <= 0:
        raise ValueError
    return found


def share(value: Any) -> float:
    found = number(value)
    if not 0 <= found < 1:
        raise ValueError
    return found


def yes(value: Any) -> bool:
    """On or off; `auto` is on."""
    if isinstance(value, bool):
        return value
    low = str(value).lower()
    if low in (*TRUE, "auto"):
        return True
    if low in FALSE:
        return False
    raise ValueError


def names(value: Any) -> tuple[str, ...]:
    """A list, or names with commas."""
    parts = value if isinstance(value, list) else str(value).split(",")
    found = tuple(str(p).strip() for p in parts if str(p).strip())
    if not found or isinstance(value, dict):
        raise ValueError
    return found


EXPECTED: dict[Callable[[Any], Any], str] = {
    text: "a name",
    whole: "a whole number",
    positive: "a whole number of at least 1",
    number: "a number",
    rate: "a number above 0",
    share: "a share of at least 0 and below 1",
    yes: "true or false",
    names: "a list of names",
}


def targets_of(value: Any) -> str | tuple[str, ...] | None:
    """`all`, `all-linear` and their spellings; one name or many; a pattern stays a string with its signs."""
    if value is None:
        return None
    found = names(value)
    if len(found) == 1:
        if found[0].lower().replace("_", "-") in ("all", "all-linear"):
            return "all-linear"
        return found[0] if not found[0].isidentifier() else found
    return found


def kernel(step: Step, said: str | None) -> str:
    """The attention of the estimate for a tool's name of it."""
    low = (said or "auto").lower()
    if low in KERNELS:
        return KERNELS[low]
    if "flash" in low:
        return "flash"
    step.assumptions.append(f"attention {said} is priced as FlashAttention, which also keeps no matrix of scores")
    return "flash"


def refuse(source: Source, key: str, what: str, why: str) -> RecipeError:
    """The error for a configuration of another kind of training."""
    return RecipeError(
        f"{source.where(key)}: {what} is not priced: {why}",
        expected="supervised fine-tuning on text (SFT)",
        fix="bring the configuration of the SFT stage",
    )


PREFERENCES = (
    "it trains on pairs of answers or rewards, with other models in memory, and priced as SFT it would be wrong"
)
VISION = "its image or audio towers and their tokens are not modelled, and priced as a text model it would be wrong"
PRETRAINING = "plain text is packed without end and no rows are described; describe it as a job with goal: knowledge"
