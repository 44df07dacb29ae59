"""Look at what a job names, once: its model, its data, its device, and what is known of the base on that data."""

from pathlib import Path

from rankwise.api.prices import own_prices, tariff_of
from rankwise.estimate.traced import shapes_of
from rankwise.observe.catalogue import find_architecture
from rankwise.observe.data import observe_data
from rankwise.observe.deepspeed import read_deepspeed
from rankwise.observe.devices import observe_device
from rankwise.observe.model import describe_facts, observe_model
from rankwise.observe.parents import observe_adapter, parent_of_model
from rankwise.records import Facts, Job, ModelFacts, NewTokens
from rankwise.text.template import ChatText

LONGEST = 8192  # tokens; rows beyond it are counted as too long unless the job says otherwise


def observe(job: Job, out: Path | None = None) -> Facts:
    """Look at model, data and device once."""
    prices = own_prices(job.costs)
    device = observe_device(job.hardware, out, prices)
    model = model_of(job)
    chat = ChatText.from_folder(model.path, job.data.named_tokens) if job.data.train else None
    limit = min(model.max_position_embeddings or LONGEST, LONGEST)
    data = observe_data(job, chat, job.train.max_length or limit, job.train.on_long or "drop")
    adapter, parent = None, parent_of_model(model)
    if job.method is not None and job.method.adapter is not None:
        adapter, parent = observe_adapter(job.method.adapter, model)
    return Facts(
        model=model,
        data=data,
        device=device,
        tariff=tariff_of(prices),
        new_tokens=_new_tokens(job, model, chat),
        adapter=adapter,
        parent=parent,
        deepspeed=read_deepspeed(job.train.deepspeed) if job.train.deepspeed else None,
        job_hash=job.content_hash(),
    )


def _new_tokens(job: Job, model: ModelFacts, chat: ChatText | None) -> NewTokens | None:
    tokens = job.data.named_tokens
    if not tokens or chat is None:
        return None
    base, ids = ChatText.from_folder(model.path), chat.ids_of(tokens)
    return NewTokens(
        ids=ids,
        pieces=tuple(tuple(base.encode(token)) for token in tokens),
        rows=max(model.vocab_size, max(ids) + 1),
    )


def model_of(job: Job) -> ModelFacts:
    """From its files; data that is only described can be planned for a model that is only described, too."""
    known = find_architecture(job.model)
    if known is None or job.data.train or Path(job.model).expanduser().is_dir():
        return observe_model(job.model)
    return describe_facts(
        job.model,
        known.config,
        shapes_of(known.config),
        license=known.license,
        source=f"architecture {known.name} of the catalogue: {known.source}",
    )
