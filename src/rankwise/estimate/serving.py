"""N variants of a model in a server: as adapters on one base, and as full copies.

GPUs are counted by memory: weights, adapter slots, the key-value cache of the conversations that are open, and what a
process takes; whether they compute fast enough for the load is not. Unmerged adapters cost throughput, so that the same
requests stay open longer: by Little's law `concurrency` / (1 - penalty) conversations instead of `concurrency`. The
peak of a prefill's activations, CUDA graphs and fragmentation have to go into the share of memory that is left free.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.estimate.kvcache import cache_of
from rankwise.estimate.memory import process_bytes
from rankwise.estimate.popularity import estimate_slots
from rankwise.estimate.storage import trained_width
from rankwise.methods import NF4_BITS, TUNERS, tuner
from rankwise.methods.unmerged import UNMERGED, slot_rank
from rankwise.records import CostOptions, DeviceFacts, LinearShape, ServingEstimate, Setup, Slots
from rankwise.records.costs import ServingFormat

UTILISATION = 0.9  # of the GPU's memory: vLLM's default --gpu-memory-utilization (docs.vllm.ai, engine arguments)
HOURS_A_MONTH = 730
SIXTEEN_BIT = 2  # bytes: what is not quantised, and adapters in a server
GROUP = 128  # weights that share a scale and a zero point in AWQ and GPTQ
# The share of throughput that adapters of UNMERGED were measured to cost (evidence E25):
# A100-80GB, Llama-2-7B, r=8: 11.45 -> 7.60 requests/s, one adapter or four (vLLM PR 11267), others 8 to 24 %, and up to
# 50 % (vLLM issue 10062, PR 15655).
PENALTY = (0.08, 0.5)
TYPICAL_PENALTY = 1 - 7.60 / 11.45


@dataclass(frozen=True)
class Fleet:
    """What servers need. Bytes.

    Attributes:
        weights: of the base, or of one copy.
        slot: of one adapter slot.
        slots: adapters held at one time, at most.
        conversation: key-value cache of one conversation.
        process: what a server takes beside tensors.
        usable: of one GPU.
        concurrency: conversations open at one time, over all variants.
    """

    weights: int
    slot: int
    slots: int
    conversation: int
    process: int
    usable: float
    concurrency: int

    def adapters(self, variants: int) -> int:
        """GPUs of one base that serves all variants unmerged."""
        open_now = math.ceil(self.concurrency / (1 - TYPICAL_PENALTY))
        return self._gpus(self.weights + min(self.slots, variants) * self.slot + open_now * self.conversation, 1)

    def copies(self, variants: int) -> int:
        """GPUs of one server for each variant; small ones share a GPU, each with a cache of its own."""
        open_now = math.ceil(self.concurrency / variants)
        return self._gpus(self.weights + open_now * self.conversation, variants)

    def break_even(self) -> int | None:
        """Smallest number of variants from which on adapters take fewer GPUs; None where they never do."""
        if self.usable <= self.process:
            return None
        dearest = self.adapters(self.slots)
        together = max(1, int(self.usable // (self.weights + self.conversation + self.process)))
        enough = dearest * together + 1  # more copies than the adapters' GPUs could hold
        last = next((n for n in range(enough, 1, -1) if self.copies(n) <= self.adapters(n)), 1)
        return last + 1

    def _gpus(self, tensors: int, servers: int) -> int:
        """Whole servers on a GPU, or GPUs that share one server's tensors equally."""
        need = tensors + self.process
        if need <= self.usable:
            return math.ceil(servers / int(self.usable // need))
        return servers * math.ceil(tensors / (self.usable - self.process))


def estimate_serving(
    setup: Setup,
    *,
    trainable: int,
    base_params: int,
    linears: Sequence[LinearShape],
    adapter_file_bytes: int | None,
    device: DeviceFacts,
    options: CostOptions,
    usd_per_hour: float | None,
    host_bytes_per_second: float | None,
) -> ServingEstimate:
    """The bill of serving `options.variants` variants trained by `setup.method`.

    One variant is merged, whatever the method, and costs no throughput. Where vLLM cannot serve a method unmerged its
    GPUs and its penalty are unknown; so are all GPUs on a CPU, and where the cache of the model is not known.

    Args:
        trainable: trained parameters.
        base_params: parameters without the adapter.
        linears: linear layers inside the blocks, which quantisation takes.
        adapter_file_bytes: of adapter_model.safetensors; None to count its tensors alone.
        usd_per_hour: of one device; None where it is unknown.
        host_bytes_per_second: of the link between host and device; None where it is unknown.
    """
    base = served_bytes(base_params, linears, options.serving_format)
    variants, full = options.variants, setup.method == "full"
    each = base if full else adapter_in_memory(setup, trainable, adapter_file_bytes)
    cache = cache_of(setup.config)
    conversation = None if cache is None else cache.bytes(options.context)
    fleet = _fleet(setup, base, each, linears, conversation, device, options)
    copies = None if fleet is None else fleet.copies(variants)
    unmerged = not full and setup.method in UNMERGED and variants > 1
    gpus = copies if full or variants == 1 else fleet.adapters(variants) if fleet and unmerged else None
    return ServingEstimate(
        base_bytes=base,
        per_variant_bytes=each,
        all_variants_bytes=variants * each + (0 if full else base),
        copies_bytes=variants * base,
        kv_cache_bytes_per_token=None if cache is None else cache.per_token,
        kv_cache_bytes=None if conversation is None else options.concurrency * conversation,
        gpus=gpus,
        copies_gpus=copies,
        usd_per_month=_monthly(gpus, usd_per_hour),
        copies_usd_per_month=_monthly(copies, usd_per_hour),
        unmerged_penalty=PENALTY if unmerged else (0.0, 0.0) if not full and variants == 1 else None,
        break_even_variants=fleet.break_even() if fleet and setup.method in UNMERGED else None,
        slots=_slots(each, options, host_bytes_per_second) if unmerged else None,
    )


def serving_notes(setup: Setup, found: ServingEstimate, options: CostOptions) -> list[str]:
    """Why something is unknown, and what the figures leave out, one sentence each."""
    notes = []
    if found.kv_cache_bytes_per_token is None:
        notes.append(f"the key-value cache of {setup.config.get('model_type')} is not known: serving GPUs are unknown")
    elif found.kv_cache_bytes is None:
        notes.append("some layers keep a state whose size is not computed: serving GPUs are unknown")
    if setup.method not in (*UNMERGED, "full") and options.variants > 1:
        notes.append(f"vLLM does not serve {setup.method} unmerged: GPUs for {options.variants} variants are unknown")
    if found.slots and found.slots.hit_rate < 1 and found.slots.active_tenants > found.slots.slots:
        notes.append(
            f"about {found.slots.active_tenants:.0f} different tenants have a conversation open and there are "
            f"{found.slots.slots} slots: a miss waits for one (seconds, sglang PR 13349), beside the transfer"
        )
    return notes


def served_bytes(params: int, linears: Sequence[LinearShape], serving_format: ServingFormat, group: int = GROUP) -> int:
    """Bytes of a base in a server; embeddings, head, norms and biases stay in 16 bit.

    fp8: one byte a weight and a 16-bit scale for each output (compressed-tensors' dynamic scheme). awq, gptq: four
    bits, and for each group a 16-bit scale and a 4-bit zero point: 4.156 bits at a group of 128. nf4: bitsandbytes'
    with double quantisation, 4.127 bits.
    """
    quantised = sum(s.out_features * s.in_features * s.count for s in linears)
    outputs = sum(s.out_features * s.count for s in linears)
    groups = sum(math.ceil(s.in_features / group) * s.out_features * s.count for s in linears)
    bits = {
        "bf16": 16.0 * quantised,
        "fp8": 8.0 * quantised + 16 * outputs,
        "awq": 4.0 * quantised + (16 + 4) * groups,
        "gptq": 4.0 * quantised + (16 + 4) * groups,
        "nf4": NF4_BITS * quantised,
    }
    return round(bits[serving_format] / 8) + SIXTEEN_BIT * (params - quantised)


def adapter_in_memory(setup: Setup, trainable: int, adapter_file_bytes: int | None) -> int:
    """Bytes that one adapter's weights take in a server: 16-bit where vLLM serves it, else as its file has them."""
    if setup.method in UNMERGED:
        return SIXTEEN_BIT * (TUNERS[setup.method].published_rank(trainable) or trainable)
    return trainable * trained_width(setup) if adapter_file_bytes is None else adapter_file_bytes


def slot_bytes(setup: Setup, linears: Sequence[LinearShape], adapter: int) -> int:
    """Bytes of one of vLLM's slots: an adapter of the next larger rank on all linear layers, whatever it targets."""
    r = tuner(setup.method).published_rank(setup.r)
    rank = None if r is None else slot_rank(r)
    if rank is None:
        return adapter
    return SIXTEEN_BIT * rank * sum((s.in_features + s.out_features) * s.count for s in linears)


def _fleet(
    setup: Setup,
    base: int,
    each: int,
    linears: Sequence[LinearShape],
    conversation: int | None,
    device: DeviceFacts,
    options: CostOptions,
) -> Fleet | None:
    """None where GPUs cannot be counted."""
    if conversation is None or device.kind != "gpu" or device.memory_bytes is None:
        return None
    return Fleet(
        weights=base,
        slot=slot_bytes(setup, linears, each),
        slots=options.slots,
        conversation=conversation,
        process=process_bytes(device, 1),
        usable=UTILISATION * device.memory_bytes,
        concurrency=options.concurrency,
    )


def _slots(adapter: int, options: CostOptions, host_bytes_per_second: float | None) -> Slots:
    return estimate_slots(
        tenants=options.variants,
        slots=min(options.slots, options.variants),
        zipf=options.zipf,
        concurrency=options.concurrency,
        adapter_bytes=adapter,
        host_bytes_per_second=host_bytes_per_second,
    )


def _monthly(gpus: int | None, usd_per_hour: float | None) -> float | None:
    return None if gpus is None or usd_per_hour is None else gpus * usd_per_hour * HOURS_A_MONTH
