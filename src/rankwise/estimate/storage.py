"""Bytes on disk and in a server's memory."""

from rankwise.estimate.memory import BYTES, OPTIMIZER_STATES
from rankwise.methods import Method
from rankwise.records import Facts, ServingEstimate, StorageEstimate, TrainConfig

# Tokenizer, configuration, random state and headers that every saved folder carries (4 MB for a 49k vocabulary).
SMALL_FILES = 5_000_000


def estimate_storage(facts: Facts, config: TrainConfig, method: Method, trainable: int) -> StorageEstimate:
    """Retention keeps the last n and the best; one more is written before an old one goes."""
    width = 4 if method.trains == "adapter" else BYTES[config.dtype]
    checkpoint = trainable * width * (1 + OPTIMIZER_STATES[config.optim])
    adapter = 4 * trainable if method.trains == "adapter" else None
    merged = facts.model.weight_bytes
    kept = config.save_total_limit + 2
    run = kept * checkpoint + (adapter or 0) + merged + SMALL_FILES * (kept + 2)
    return StorageEstimate(checkpoint_bytes=checkpoint, adapter_bytes=adapter, run_bytes=run, usd_per_month=None)


def estimate_serving(facts: Facts, method: Method, trainable: int, variants: int) -> ServingEstimate:
    """N tenants: one base and N adapters, or N full copies."""
    base = facts.model.weight_bytes
    if method.trains == "adapter":
        each = 4 * trainable
        return ServingEstimate(base_bytes=base, per_variant_bytes=each, all_variants_bytes=base + variants * each)
    return ServingEstimate(base_bytes=base, per_variant_bytes=base, all_variants_bytes=variants * base)
