"""What a method must declare. Torch-free: planning prices a method without importing the library that runs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rankwise.errors import JobError
from rankwise.records import LinearShape, ModelFacts


@dataclass(frozen=True)
class Method:
    """One way to change a model that training can carry out.

    Attributes:
        name: as in `--method`; its Tuner says how it is attached.
        trains: `weights` (the model's own) or `adapter` (a few new ones beside frozen weights).
        options: the keys of a job's `method`, and of TrainConfig, that it has.
        neutral: part of the names of the trained tensors that change nothing at first, and their value then: one that
            still has it was not trained, or not loaded. None where no tensor is neutral.
        encodes: what trains is an encoder, of whose result alone the adapter's file is made; a checkpoint holds both.
    """

    name: str
    trains: Literal["weights", "adapter"]
    options: tuple[str, ...] = ()
    neutral: tuple[str, float] | None = None
    encodes: bool = False


@dataclass(frozen=True)
class AdapterOptions:
    """What a person says about an adapter; None leaves it to the method.

    Attributes:
        r: rank, or what the method has in its place (`Tuner.rank`).
        target_modules: `all-linear`, or names of modules (the end of their path is enough).
        num_virtual_tokens: prompt methods: learned positions.
        bottleneck_size: bottleneck adapters: inner width.
        new_token_rows: PEFT's field that trains rows of new tokens (model/vocabulary.py); None without such tokens.
        new_token_ids: those rows.
        more: further fields of the PEFT config class, by their own names; they win over everything else.
    """

    r: int | None = None
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    target_modules: str | tuple[str, ...] | None = None
    num_virtual_tokens: int | None = None
    bottleneck_size: int | None = None
    new_token_rows: str | None = None
    new_token_ids: tuple[int, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuner:
    """A method as it is attached to a model and priced: what cannot be read off PEFT's config class.

    Attributes:
        name: as in `--method`.
        peft_type: key of peft.PEFT_TYPE_TO_CONFIG_MAPPING; None where PEFT is not used.
        base: how the frozen linear weights are stored; `as-loaded` leaves them in the dtype of the setup.
        fixed: config fields that make the method what it is.
        defaults: config fields that PEFT leaves without a value that works, each with its reason beside it.
        rank: rank -> config fields; None takes the first of RANK_FIELDS that the config class has.
        matrix_rank: is `--rank` the rank of a matrix as large as the target's, and so no larger than its smaller side?
        divides: a block size that must divide the width of every target, and which widths (`in`, `out`, `both`).
        residual: its first values are taken out of the base's weights, so that the base it trains on is not the base
            of the files; it is published as LoRA of twice the rank, which undoes that (model/pissa.py).
        spans_layers: one tensor holds a part for every decoder layer, so layers cannot be traced one by one.
        checkpointing: does it train with gradient checkpointing?
        untraceable: why its step cannot be traced; empty where it can.
    """

    name: str
    peft_type: str | None
    base: Literal["as-loaded", "nf4", "int8", "gptq"] = "as-loaded"
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    rank: Callable[[int], dict[str, Any]] | None = None
    matrix_rank: bool = False
    divides: tuple[str, Literal["in", "out", "both"]] | None = None
    residual: bool = False
    spans_layers: bool = False
    checkpointing: bool = True
    untraceable: str = ""

    def published_rank(self, r: int | None) -> int | None:
        """Rank of the adapter in its file, trained at rank `r`."""
        return 2 * r if self.residual and r is not None else r


RANK_FIELDS = ("r", "effective_rank", "n_frequency", "num_ranks")
ALPHA_FIELDS = ("lora_alpha", "alpha", "randlora_alpha", "psoft_alpha", "shadow_alpha")
DROPOUT_ENDS = ("_dropout", "_dropout_p")
VIRTUAL_TOKENS = 20  # PEFT has no default; its own examples and benchmarks use 8 to 200


def config_fields(tuner: Tuner, options: AdapterOptions, fields: frozenset[str]) -> tuple[dict[str, Any], list[str]]:
    """Values for a PEFT config class that has `fields`, without the targets; and notes on what has no place in it."""
    values: dict[str, Any] = {"task_type": "CAUSAL_LM", **tuner.defaults}
    notes: list[str] = []
    if options.r is not None:
        values |= _placed(tuner, "rank", options.r, _rank(tuner, options.r, fields), notes)
    if options.lora_alpha is not None:
        values |= _placed(tuner, "alpha", options.lora_alpha, _first(ALPHA_FIELDS, options.lora_alpha, fields), notes)
    if options.lora_dropout:
        names = sorted(f for f in fields if f.endswith(DROPOUT_ENDS))
        values |= _placed(tuner, "dropout", options.lora_dropout, _first(names, options.lora_dropout, fields), notes)
    values |= _virtual_tokens(options.num_virtual_tokens, fields)
    return values | dict(tuner.fixed) | dict(options.more), notes


def _rank(tuner: Tuner, r: int, fields: frozenset[str]) -> dict[str, Any]:
    return tuner.rank(r) if tuner.rank else _first(RANK_FIELDS, r, fields)


def _first(names: tuple[str, ...] | list[str], value: float, fields: frozenset[str]) -> dict[str, Any]:
    return next(({name: value} for name in names if name in fields), {})


def _placed(tuner: Tuner, word: str, value: float, found: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    if not found:
        notes.append(f"{word} {value} is ignored: {tuner.name} has no {word}")
    return found


def _virtual_tokens(count: int | None, fields: frozenset[str]) -> dict[str, Any]:
    if "adapter_len" in fields:
        return {"adapter_len": count or 10}  # LLaMA-Adapter (Zhang et al. 2023, arXiv 2303.16199), section 4.1
    if "num_virtual_tokens" not in fields:
        return {}
    count = count or VIRTUAL_TOKENS
    return {"num_virtual_tokens": count} | _context_tokens(count, fields)


def _context_tokens(count: int, fields: frozenset[str]) -> dict[str, Any]:
    """Context-aware prompt tuning starts from tokens of the training set; which ones does not change a size."""
    if "cpt_token_ids" not in fields:
        return {}
    return {"cpt_token_ids": [0] * count, "cpt_mask": [1] * count, "cpt_tokens_type_mask": [1] * count}


def targeted(facts: ModelFacts, target_modules: str | tuple[str, ...] | None) -> tuple[LinearShape, ...]:
    """The linear layers that `target_modules` names. Raises JobError when it names none of this model's."""
    if target_modules in (None, "all-linear"):
        return facts.linears
    wanted = {target_modules} if isinstance(target_modules, str) else set(target_modules or ())
    hit = tuple(s for s in facts.linears if s.name in wanted)
    if not hit:
        have = ", ".join(sorted({s.name for s in facts.linears}))
        raise JobError(
            f"method.target_modules {', '.join(sorted(wanted))}: no linear layer of {facts.name} has such a name",
            expected=f"all-linear, or some of {have}",
        )
    return hit
