"""Faults that the keys alone show: unknown, given twice, gone, or holding a secret."""

from collections.abc import Iterator, Mapping

from rankwise.observe.recipes.reading import Source
from rankwise.observe.recipes.schema import RETIRED, Schema
from rankwise.observe.recipes.secrets import hide, secret_keys
from rankwise.observe.recipes.trl import ADAPTER, EIGHT, FOUR, LAUNCHER_KEYS, LENGTH, MODEL, RANK, ROWS, TARGETS
from rankwise.records.recipe import Risk

# What becomes of a key that a tool does not know.
IGNORED = {
    "axolotl": "Axolotl's schema drops a key that it does not know without a word: the run goes on without it",
    "llama-factory": "LLaMA-Factory stops with an error on a key that it does not know",
    "trl": "`trl sft` hands a key that it does not know to accelerate's launcher, which stops on one of neither",
}
ADAPTER_SETTINGS = (
    "lora_alpha",
    "lora_dropout",
    "use_dora",
    "use_rslora",
    "bits",
    "pad_token",
    "eos_token",
    "torch_dtype",
)
# Names that a schema does not have and that are read all the same.
OWN_NAMES: dict[str, tuple[str, ...]] = {
    "trl": LAUNCHER_KEYS,
    "args": (*MODEL, *RANK, *TARGETS, *LENGTH, *ADAPTER, *FOUR, *EIGHT, *ROWS, *LAUNCHER_KEYS, *ADAPTER_SETTINGS),
}
GONE = "transformers 5.23 has no {key}{asks}: with it, this stops the run"


def key_faults(source: Source, schema: Schema, tool: str) -> tuple[Risk, ...]:
    """In the order of the file."""
    found = [*_twice(source, tool), *_unknown(source, schema, tool), *_nested(source, schema)]
    found += [*_deprecated(source, schema), *_choices(source, schema), *_secrets(source), *_missing(source)]
    return tuple(sorted(found, key=lambda r: r.line or 0))


def _twice(source: Source, tool: str) -> Iterator[Risk]:
    for key, first, line in source.twice:
        stops = tool == "llama-factory" and source.path is not None and source.path.suffix in (".yaml", ".yml")
        effect = "OmegaConf refuses the file" if stops else f"line {line} wins and line {first} is lost"
        yield Risk(
            level="fault",
            rule="key_twice",
            key=key,
            line=line,
            text=f"{key} is given twice: {effect}.",
            number=f"lines {first} and {line}",
            fix="keep one",
        )


def _unknown(source: Source, schema: Schema, tool: str) -> Iterator[Risk]:
    for key, said in source.said.items():
        if said.value is None or key in schema.keys or key in OWN_NAMES.get(tool, ()):
            continue
        if key in RETIRED and tool != "axolotl":
            asks = (
                f" ({schema.tool} {schema.version} asks for transformers {schema.requires})" if schema.requires else ""
            )
            yield Risk(
                level="risk",
                rule="key_retired",
                key=key,
                line=said.line,
                text=GONE.format(key=key, asks=asks) + ".",
                fix=f"write {RETIRED[key]}"
                if not RETIRED[key].startswith("nothing")
                else f"remove it ({RETIRED[key]})",
            )
            continue
        near = schema.nearest(key)
        own = tool == "args"
        yield Risk(
            level="note" if own and near is None else "risk" if own else "fault",
            rule="key_unknown",
            key=key,
            line=said.line,
            text=f"{key} is no argument of transformers' Trainer: the script may have its own."
            if own
            else f"{schema.tool} {schema.version} has no key {key}. {IGNORED[tool]}.",
            fix=f"did you mean {near}?" if near else "remove it, or check its name",
        )


def _nested(source: Source, schema: Schema) -> Iterator[Risk]:
    """Keys inside of datasets and special_tokens."""
    for parent, keys in schema.nested.items():
        value = source.said[parent].value if parent in source.said else None
        entries = value if isinstance(value, list) else [value]
        for number, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                continue
            for key in map(str, entry):
                if key in keys:
                    continue
                path = (parent, str(number), key) if isinstance(value, list) else (parent, key)
                near = schema.nearest(key, keys)
                yield Risk(
                    level="fault",
                    rule="key_unknown",
                    key=".".join((parent, key)),
                    line=source.inner.get(path),
                    text=f"{schema.tool} {schema.version} has no key {key} in {parent}.",
                    fix=f"did you mean {near}?" if near else "remove it, or check its name",
                )


def _deprecated(source: Source, schema: Schema) -> Iterator[Risk]:
    for key, sentence in schema.deprecated.items():
        if key in source.said and source.said[key].value not in (None, False):
            stops = "no longer supported" in sentence
            yield Risk(
                level="fault" if stops else "note",
                rule="key_deprecated",
                key=key,
                line=source.said[key].line,
                text=f"{key} is deprecated in {schema.tool} {schema.version}{', which stops on it' if stops else ''}.",
                fix=sentence.strip(),
            )


def _choices(source: Source, schema: Schema) -> Iterator[Risk]:
    for key, allowed in schema.choices.items():
        value = source.said[key].value if key in source.said else None
        if isinstance(value, str) and value not in allowed:
            yield Risk(
                level="fault",
                rule="value_unknown",
                key=key,
                line=source.said[key].line,
                text=f"{key} is {hide(key, value)!r}, which {schema.tool} {schema.version} does not take.",
                fix=f"one of {', '.join(allowed)}",
            )


def _secrets(source: Source) -> Iterator[Risk]:
    held = [(key, said.line) for name, said in source.said.items() for key in secret_keys(name, said.value)]
    for key, line in (*held, *source.secrets):
        yield Risk(
            level="risk",
            rule="secret_in_file",
            key=key,
            line=line,
            text=f"{key} holds a secret, in clear; it is not shown here.",
            fix="take it out, give it as an environment variable, and revoke it if the file was ever shared",
        )


def _missing(source: Source) -> Iterator[Risk]:
    for name in dict.fromkeys(source.missing):
        yield Risk(
            level="note",
            rule="variable_unset",
            key=None,
            line=None,
            text=f"The variable {name} is set nowhere in this script; what depends on it is taken as it stands.",
            fix=f"set {name} in the script, or give the option after --",
        )
