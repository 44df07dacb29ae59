"""Facts: what was seen when the world was looked at once. Unknown is None, never a guess."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rankwise.errors import ModelError
from rankwise.records.base import Record
from rankwise.records.costs import Pricing, Tariff
from rankwise.records.diagnosis import Diagnosis
from rankwise.records.lineage import AdapterFacts, Parent
from rankwise.records.past import Past

NOT_IDENTITY: dict[str, Any] = {
    "matmul_flops": {},
    "available_bytes": None,
    "bandwidth": None,
    "link": None,
    "link_bytes_per_second": None,
    "watts": None,
    "disk_free_bytes": None,
    "price": None,
    "source": "",
}


class LinearShape(Record):
    """Weight matrices of one name and shape, such as all `q_proj` of a model."""

    name: str = Field(description="Last part of the module's name, e.g. q_proj.")
    out_features: int
    in_features: int
    count: int = Field(description="How many of them the model has.")


class ModelFacts(Record):
    """Shapes read from config.json and safetensors headers; no weights are loaded."""

    name: str = Field(description="As the job names it.")
    folder: str | None = Field(description="Where its files are; None for a model known by its config alone.")
    architecture: str = Field(description="transformers class, e.g. LlamaForCausalLM.")
    total_params: int = Field(description="Parameters, tied ones counted once.")
    linears: tuple[LinearShape, ...] = Field(description="Linear layers inside the blocks (no embedding, no head).")
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int | None
    vocab_size: int
    max_position_embeddings: int | None
    tie_word_embeddings: bool
    dtype: str = Field(description="Of the stored weights: bf16, fp16 or fp32.")
    weight_bytes: int = Field(description="Bytes of the stored weights.")
    config: dict[str, Any] = Field(description="config.json of the language model, by Hugging Face names.")
    weights_hash: str | None = Field(description="sha256 over the weight files and config.json; None without files.")
    template_hash: str | None = Field(
        description="sha256 of chat template and special tokens; None without a template."
    )
    license: str | None = Field(description="From the model card; None if it does not say.")
    source: str = Field(description="Where these facts come from.")

    @property
    def path(self) -> Path:
        """The folder of its files. Raises ModelError when they are not here."""
        if self.folder is None:
            raise ModelError(
                f"the files of {self.name} are not here: it was planned from its config alone",
                fix="download it, or name a folder that holds it, and plan again",
            )
        return Path(self.folder)

    @property
    def linear_params(self) -> int:
        """Parameters of the linear layers inside the blocks."""
        return sum(s.out_features * s.in_features * s.count for s in self.linears)


class WatchedSet(Record):
    """A set that general ability is watched on, as far as its cost and its meaning depend on it."""

    name: str
    metric: Literal["general_loss", "choice"] = Field(description="Cross-entropy, or choice by likelihood.")
    items: int = Field(description="Rows or questions.")
    tokens: int = Field(description="That a model reads for all of them; one forward pass an item.")
    labelled: int = Field(description="Positions of these whose logits are made.")
    chance: float | None = Field(description="Share that guessing gets right; None: nothing is chosen.")


class DataFacts(Record):
    """Counts over the job's data, made with the model's own tokenizer and chat template."""

    format: str = Field(description="Detected format of the training rows.")
    rows: int = Field(description="Training rows used (after on_long).")
    tokens: int = Field(description="Tokens of those rows, one epoch.")
    supervised_tokens: int = Field(description="Tokens that carry a label, one epoch.")
    mean_length: float = Field(description="Tokens per row.")
    longest: int = Field(description="Tokens of the longest row as given, before on_long.")
    long_rows: int = Field(description="Rows longer than max_length.")
    dropped_rows: int = Field(description="Rows dropped by on_long.")
    lost_supervised_tokens: int = Field(description="Labelled tokens lost by on_long.")
    length_histogram: tuple[tuple[int, int], ...] = Field(description="(upper length in tokens, rows) per bin.")
    validation_rows: int
    validation_tokens: int
    general_rows: int = Field(description="General rows given; 0 means none given.")
    general_supervised_per_row: float | None = Field(description="Labelled tokens per general row; None without them.")
    general_to_write: int = Field(0, description="General rows that the base has yet to write before training.")
    facts: int = Field(description="Closed-book probes given; 0 means none given.")
    watched: tuple[WatchedSet, ...] = Field((), description="What forgetting is watched on; none: it is not.")
    files: dict[str, str] = Field(description="Path -> sha256 of each data file.")
    source: str = Field(description="Where these facts come from.")


class NewTokens(Record):
    """Tokens that a job adds to the vocabulary, as the model will know them."""

    ids: tuple[int, ...] = Field(description="Of each token, in the job's order.")
    pieces: tuple[tuple[int, ...], ...] = Field(description="Token ids that the base reads each of them as.")
    rows: int = Field(description="Of embedding and head once they are there.")


class Price(Record):
    """What one device costs an hour to rent, without tax. None is unknown, never 0."""

    usd_per_hour: float | None = Field(gt=0, description="On demand.")
    spot_usd_per_hour: float | None = Field(gt=0, description="Of capacity that the provider may take back.")
    source: str = Field(description="Who says so, with its date.")

    def at(self, pricing: Pricing) -> float | None:
        """USD per hour as it is charged under `pricing`; None if unknown."""
        return self.usd_per_hour if pricing == "on-demand" else self.spot_usd_per_hour


class DeviceFacts(Record):
    """The device a run would use."""

    kind: Literal["cpu", "gpu"]
    name: str
    count: int = Field(description="Devices over all nodes.")
    cores: int | None = Field(description="Usable CPU cores; None for a GPU that is not here.")
    memory_bytes: int | None = Field(
        description="Memory of one device that processes can use (RAM for a CPU); None for a GPU that nobody knows."
    )
    available_bytes: int | None = Field(description="Memory free now; None for a device that is not here.")
    bf16: bool = Field(description="Has native bfloat16 arithmetic.")
    matmul_flops: dict[str, float] = Field(
        description="FLOP/s per dtype (bf16, fp16, fp32, fp8, int8, as far as known) of one device."
    )
    matmul_measured: bool = Field(description="True: measured here; False: peak of the datasheet.")
    compute_capability: float | None = Field(description="NVIDIA's, e.g. 8.0; None for other devices.")
    context_bytes: tuple[int, int, int] | None = Field(
        description="Low, likely, high: what a process takes beyond what torch reserves. None for a CPU, or unknown."
    )
    bandwidth: float | None = Field(None, description="Bytes per second of the device's own memory, datasheet.")
    link: str | None = Field(None, description="What joins it to the other devices of its machine, e.g. NVLink 4.")
    link_bytes_per_second: float | None = Field(None, description="Of that link: one direction, one device, all lanes.")
    watts: float | None = Field(None, description="Thermal design power of one device, datasheet.")
    disk_free_bytes: int | None = Field(description="Free bytes where runs are written.")
    price: Price | None = Field(None, description="Of one device; None for a device that nobody rents out.")
    source: str = Field(description="Where these facts come from, with its date.")

    @property
    def usd_per_hour(self) -> float | None:
        """On-demand price of one device; None if unknown."""
        return None if self.price is None else self.price.usd_per_hour

    @property
    def identity_hash(self) -> str:
        """Hash of what makes it the same device for a plan: not its price, what a table or a measurement says of its
        speed, nor what is free at the moment."""
        return Record.content_hash(self.model_copy(update=NOT_IDENTITY))


class Facts(Record):
    """All that was observed for one job."""

    version: Literal[1] = 1
    model: ModelFacts
    data: DataFacts
    device: DeviceFacts
    tariff: Tariff
    diagnosis: Diagnosis | None = Field(None, description="None: nobody has asked the base yet.")
    deepspeed: dict[str, Any] | None = Field(None, description="The job's own DeepSpeed JSON; None: it has none.")
    new_tokens: NewTokens | None = Field(None, description="None: the job names none.")
    adapter: AdapterFacts | None = Field(None, description="That training goes on from; None: it begins a new one.")
    parent: Parent | None = Field(None, description="What made that adapter, or the model; None: nothing known did.")
    past: Past | None = Field(None, description="Earlier comparisons on this machine; None: none is on file.")
    job_hash: str = Field(description="Hash of the Job these facts were observed for.")
