"""Bytes on disk and in a server's memory."""

from rankwise.records import ServingEstimate, Setup, StorageEstimate

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
# Bytes of optimizer state per trained parameter that do not follow its dtype: bitsandbytes keeps one byte a state and
# fp32 scales for blocks of 256, or fp32 states; Adafactor keeps sums of rows and columns, which are small beside them.
STATE_BYTES = {
    "adamw_8bit": 2 * (1 + 4 / 256),
    "adamw_bnb_8bit": 2 * (1 + 4 / 256),
    "paged_adamw_8bit": 2 * (1 + 4 / 256),
    "lion_8bit": 1 + 4 / 256,
    "paged_lion_8bit": 1 + 4 / 256,
    "paged_adamw": 8.0,
    "paged_adamw_32bit": 8.0,
    "sgd": 0.0,
    "adafactor": 0.0,
}
# States per trained parameter in the parameter's own dtype; AdamW's two where a name is not listed.
STATES = {"rmsprop": 1}
ADAM_STATES = 2
# Tokenizer, configuration, random state and headers that every saved folder carries (4 MB for a 49k vocabulary).
SMALL_FILES = 5_000_000


def trained_bytes(setup: Setup) -> int:
    """Bytes of one trained parameter."""
    return BYTES[setup.adapter_dtype if setup.method != "full" else setup.dtype]


def state_bytes(setup: Setup) -> float:
    """Bytes of optimizer state per trained parameter, over all devices."""
    if setup.optim in STATE_BYTES:
        return STATE_BYTES[setup.optim]
    return float(STATES.get(setup.optim, ADAM_STATES) * trained_bytes(setup))


def estimate_storage(setup: Setup, trainable: int, stored_bytes: int, save_total_limit: int) -> StorageEstimate:
    """Retention keeps the last n and the best; one more is written before an old one goes.

    Args:
        stored_bytes: of the whole model as it is saved.
    """
    width = trained_bytes(setup)
    checkpoint = round(trainable * (width + state_bytes(setup)))
    adapter = width * trainable if setup.method != "full" else None
    kept = save_total_limit + 2
    run = kept * checkpoint + (adapter or 0) + stored_bytes + SMALL_FILES * (kept + 2)
    return StorageEstimate(checkpoint_bytes=checkpoint, adapter_bytes=adapter, run_bytes=run, usd_per_month=None)


def estimate_serving(setup: Setup, trainable: int, stored_bytes: int, variants: int) -> ServingEstimate:
    """N tenants: one base and N adapters, or N full copies."""
    if setup.method != "full":
        each = trained_bytes(setup) * trainable
        return ServingEstimate(
            base_bytes=stored_bytes, per_variant_bytes=each, all_variants_bytes=stored_bytes + variants * each
        )
    return ServingEstimate(
        base_bytes=stored_bytes, per_variant_bytes=stored_bytes, all_variants_bytes=variants * stored_bytes
    )
