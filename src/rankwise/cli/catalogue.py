"""`rankwise models` and `gpus`"""

from pathlib import Path
from typing import Annotated

import typer

from rankwise.cli.completing import model_names
from rankwise.cli.face import PRICES_HELP, Json, command
from rankwise.cli.printing import print_json, print_lines, print_passage, print_table


@command
def models(
    *,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A name or hub id; empty: all of them.", autocompletion=model_names),
    ] = None,
    as_json: Json = False,
) -> int:
    """The architectures known offline, or one of them in full. Example: `rankwise models llama-3-8b`"""
    from rankwise import api
    from rankwise.report.quantities import plain

    if name is not None:
        one = api.model(name)
        if as_json:
            print_json(one)
            return 0
        for key, value in one.items():
            if key != "config" and value not in (None, []):
                print_lines(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
        return 0
    found = api.models()
    if as_json:
        print_json(found)
        return 0
    heads = ("name", "parameters", "layers", "hidden", "heads", "kv heads", "vocabulary", "positions", "license")
    shape = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads")
    keys = (*shape, "vocab_size", "max_position_embeddings")
    rows = [
        (row["name"], f"{plain(row['total_params'] / 1e9)} B", *(row[k] for k in keys), row["license"]) for row in found
    ]
    print_table(heads, rows)
    return 0


@command
def gpus(
    *,
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help=PRICES_HELP)] = None,
    as_json: Json = False,
) -> int:
    """The GPUs known by name: memory, datasheet rates and the price of an hour. Example: `rankwise gpus --json`

    A price is the median of the providers' list prices that we found; `--json` has each of them, with its date.
    """
    from rankwise import api
    from rankwise.report import gpu_words as words

    found = api.gpus(prices)
    if as_json:
        print_json(found)
        return 0
    print_table(words.GPU_HEADS, [words.gpu_row(row) for row in found])
    print_passage("Columns", words.passage(found))
    return 0
