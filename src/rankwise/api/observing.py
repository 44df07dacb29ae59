"""Look at what a job names, once: its model, its data, its device, and what is known of the base on that data."""

from pathlib import Path

from rankwise.api.prices import own_prices, tariff_of
from rankwise.api.progress import Progress, quiet
from rankwise.compare.evidence import past_of
from rankwise.estimate.traced import shapes_of
from rankwise.observe.catalogue import find_architecture
from rankwise.observe.data import observe_data
from rankwise.observe.deepspeed import read_deepspeed
from rankwise.observe.devices import observe_device
from rankwise.observe.model import describe_facts, observe_model
from rankwise.observe.parents import observe_adapter, parent_of_model
from rankwise.records import Facts, Job, ModelFacts, NewTokens
from rankwise.text.general import general_path
from rankwise.text.template import ChatText

LONGEST = 8192  # tokens; rows beyond it are counted as too long unless the job says otherwise


def observe(job: Job, out: Path | None = None, progress: Progress = quiet) -> Facts:
    """Look at model, data and device once; `progress` is told of rows that are tokenised for it."""
    prices = own_prices(job.costs)
    device = observe_device(job.hardware, out, prices)
    model = model_of(job)
    chat = ChatText.for_job(job, model.path) if job.data.train else None
    limit = min(model.max_position_embeddings or LONGEST, LONGEST)
    general = general_path(job, model) if job.data.train else None
    length, on_long = job.train.max_length or limit, job.train.on_long or "drop"
    data = observe_data(job, chat, length, on_long, general=general, progress=progress)
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
        past=past_of(model.weights_hash),
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
        return _with_template(observe_model(job.model), job.chat_template)
    return describe_facts(
        job.model,
        known.config,
        shapes_of(known.config),
        license=known.license,
        source=f"architecture {known.name} of the catalogue: {known.source}",
    )


def _with_template(facts: ModelFacts, chat_template: Path | None) -> ModelFacts:
    """The facts under the job's own chat template."""
    if chat_template is None:
        return facts
    given = ChatText.from_folder(facts.path, chat_template=chat_template)
    return facts.model_copy(update={"template_hash": given.template_hash})
