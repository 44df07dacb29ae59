"""`rankwise serve`"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from rankwise.cli.face import Json, command
from rankwise.cli.printing import notes, print_json
from rankwise.cli.tenants import Where
from rankwise.errors import UsageError

ENGINES = ("embedded", "vllm")
ENGINE, EMBEDDED, TENANTS, GATEWAY = "Engine", "Embedded engine", "Tenants and their adapters", "Gateway"  # of --help


@command
def serve(
    *,
    model: Annotated[
        str, typer.Option(help="The base that the tenants' adapters were trained on: `embedded`, a folder or a hub id.")
    ] = "embedded",
    engine: Annotated[
        str,
        typer.Option(
            help="`embedded` (transformers and PEFT, no extra install) or `vllm`.",
            metavar="NAME",
            rich_help_panel=ENGINE,
        ),
    ] = "embedded",
    engine_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="A vLLM server that runs already; without it one is started.", rich_help_panel=ENGINE
        ),
    ] = None,
    engine_python: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Interpreter that has vLLM (default: found beside ours, see `make vllm`).",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    registry: Where = None,
    adapters: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|URL",
            help="Where `rankwise tenants add` keeps adapter files (default as there).",
            rich_help_panel=TENANTS,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Any but a loopback address is reached from outside, without TLS.",
            rich_help_panel=GATEWAY,
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.", rich_help_panel=GATEWAY)] = 8000,
    slots: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Adapters loaded at once (default: planned from the tenants' popularity).",
            rich_help_panel=TENANTS,
        ),
    ] = None,
    memory_gb: Annotated[
        float,
        typer.Option(
            min=0.001, help="GB that the files of loaded adapters may have together.", rich_help_panel=TENANTS
        ),
    ] = 1.0,
    zipf: Annotated[
        float,
        typer.Option(
            min=0.0, help="How unequal tenants are asked (share ~ rank^-ZIPF), to plan slots.", rich_help_panel=TENANTS
        ),
    ] = 1.0,
    allow_base: Annotated[
        bool, typer.Option("--allow-base", help="Every key may ask the model `base`.", rich_help_panel=TENANTS)
    ] = False,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Requests that are answered together.", rich_help_panel=ENGINE)
    ] = 16,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=2, help="Tokens of prompt and answer together (default: the model's positions).", rich_help_panel=ENGINE
        ),
    ] = None,
    max_open: Annotated[
        int, typer.Option(min=1, help="Requests answered or waiting at once; more get 503.", rich_help_panel=GATEWAY)
    ] = 256,
    max_choices: Annotated[
        int, typer.Option(min=1, help="Answers of one request (prompts x n).", rich_help_panel=GATEWAY)
    ] = 8,
    max_body_kb: Annotated[int, typer.Option(min=1, help="Size of one request in kB.", rich_help_panel=GATEWAY)] = 1024,
    request_seconds: Annotated[float, typer.Option(min=1, help="For one answer.", rich_help_panel=GATEWAY)] = 600.0,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="For open requests after SIGTERM or Ctrl-C.", rich_help_panel=GATEWAY)
    ] = 30.0,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Of the embedded engine: bf16 or fp32 (default: fp32 on a CPU, else bf16).", rich_help_panel=EMBEDDED
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="Of the embedded engine, or of a vLLM that runs already: cpu, cuda:0, ...", rich_help_panel=EMBEDDED
        ),
    ] = "cpu",
    four_bit: Annotated[
        bool,
        typer.Option(
            "--four-bit",
            help="The embedded engine holds the base in NF4, as QLoRA trained on it.",
            rich_help_panel=EMBEDDED,
        ),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the embedded engine's arithmetic.", rich_help_panel=EMBEDDED)
    ] = None,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Write prompts and answers into the log: they may be confidential.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Many tenants' adapters on one base, behind OpenAI's API. Example: `rankwise serve --model embedded`"""
    from rankwise import api

    if engine not in ENGINES or dtype not in (None, "bf16", "fp32"):
        raise UsageError(
            f"--engine {engine}, --dtype {dtype}", expected=f"an engine of {', '.join(ENGINES)}; dtype bf16 or fp32"
        )
    _warn(None if api.is_loopback(host) else host, log_prompts)
    limits = {
        "allow_base": allow_base,
        "max_open": max_open,
        "max_choices": max_choices,
        "max_body_bytes": max_body_kb * 1024,
        "request_seconds": request_seconds,
        "drain_seconds": drain_seconds,
        "log_prompts": log_prompts,
    }
    asked = api.Serving(
        model=model,
        engine=engine,  # type: ignore[arg-type]
        engine_url=engine_url,
        engine_python=engine_python,
        registry=registry,
        adapters=adapters,
        host=host,
        port=port,
        slots=slots,
        memory_gb=memory_gb,
        zipf=zipf,
        max_batch=max_batch,
        max_length=max_length,
        dtype=dtype,  # type: ignore[arg-type]
        device=device,
        four_bit=four_bit,
        threads=threads,
        limits=limits,
    )
    api.serve(asked, _print_ready_as_json if as_json else _print_ready)
    return 0


def _warn(reached_by: str | None, log_prompts: bool) -> None:
    """Of what a person may not have meant. `reached_by`: an address from outside this machine."""
    if reached_by is not None:
        notes.print(
            f"[bold yellow]warning:[/] {escape(reached_by)} is reached from outside this machine, and the gateway "
            "speaks no TLS: keys and prompts travel readable. Put a proxy with TLS in front of it."
        )
    if log_prompts:
        notes.print("[bold yellow]warning:[/] prompts and answers are written into the log (--log-prompts).")


def _print_ready(told: dict[str, Any]) -> None:
    notes.print(
        f"{told['url']} answers for {told['tenants']} tenants on {escape(told['base']['name'])}, engine "
        f"{told['engine']}, {told['slots']} slots, {told['max_length']:,} tokens a request. Ctrl-C ends it."
    )


def _print_ready_as_json(told: dict[str, Any]) -> None:
    print_json(told)
    sys.stdout.flush()
