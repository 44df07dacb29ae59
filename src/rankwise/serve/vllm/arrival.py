"""What comes before an answer: a server that is the one we read for, and adapters under their names in it."""

from pathlib import Path

from rankwise.errors import ModelError, RankwiseError
from rankwise.serve.engine import AdapterRefused
from rankwise.serve.vllm.attached import KEY
from rankwise.serve.vllm.canary import MERGE, conversations
from rankwise.serve.vllm.client import Client, Served
from rankwise.serve.vllm.stream import ServerFault
from rankwise.text.template import ChatText


async def examine_server(
    client: Client, chat: ChatText, model: Path, *, max_model_len: int | None, adapters: bool
) -> Served:
    """What a server that came up says of itself, once it is known to be the one that is meant.

    Args:
        chat: of the base in `model`.
        max_model_len: tokens of prompt and answer that it must at least take; None: whatever it takes.
        adapters: must it load some at run time?

    Raises:
        ModelError: another base, or too short.
        RankwiseError: our key is not its, or it loads no adapters.
        EngineDied: it went away meanwhile.
    """
    try:
        served = await client.served()
        _long_enough(client, served, max_model_len)
        await _reads_alike(client, served, chat, model)
        if adapters and not await client.can_load():
            raise RankwiseError(
                f"vLLM at {client.url} does not load adapters at run time",
                expected="a server with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
                fix="start it so (docs/serve-vllm.md), behind a firewall: whoever has its key may then load files",
            )
        return served
    except ServerFault as fault:
        hint = f"put its key into {KEY}" if fault.status in (401, 403) else ""
        raise RankwiseError(f"{client.url}: {fault.what}", fix=hint) from None


def _long_enough(client: Client, served: Served, wanted: int | None) -> None:
    if wanted is not None and served.max_model_len < wanted:
        raise ModelError(
            f"vLLM at {client.url} takes {served.max_model_len:,} tokens of prompt and answer",
            expected=f"{wanted:,}",
            fix="start it with a larger --max-model-len, or serve with a smaller one",
        )


async def _reads_alike(client: Client, served: Served, chat: ChatText, model: Path) -> None:
    for one in conversations(chat):
        if not await client.reads_alike(served.base, one):
            raise ModelError(
                f"vLLM's {served.base} ({served.root}) reads {one.messages[-1]['content']!r} as other ids than {model}",
                expected="the same tokenizer and chat template",
                fix="attach to a server of this very base",
            )


async def bring(client: Client, name: str, folder: Path) -> None:
    """Loaded, unless the server has that folder under that name; another folder takes its place.

    Raises:
        AdapterRefused: it cannot be read there, or vLLM does not take it.
        EngineDied: nobody answers.
    """
    folder = folder.resolve()
    there = (await client.served()).adapters.get(name)
    if there == str(folder):
        return
    try:
        await client.load(name, folder, again=there is not None)
    except ServerFault as fault:
        if fault.status == 404:
            raise AdapterRefused(
                f"vLLM cannot read {name} in {folder}",
                expected="a folder that is there, under the same path, for the server's process",
                fix="give both the same volume",
            ) from None
        raise AdapterRefused(f"vLLM refuses {name}: {fault.what}", fix=MERGE) from None
