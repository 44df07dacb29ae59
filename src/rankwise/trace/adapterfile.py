"""How large an adapter's file will be: of all layers, on `meta`."""

from rankwise.model.adapterfile import adapter_file_bytes
from rankwise.records.setup import Setup
from rankwise.trace.build import build
from rankwise.trace.run import SIXTEEN_BIT


def adapter_file(setup: Setup) -> int | None:
    """Bytes of adapter_model.safetensors, header included; None for full fine-tuning.

    Names of layers stand in the header, so that the model is built in all its depth (0.1 to 0.5 s); how the base is
    quantised changes nothing in the file.

    Raises:
        ModelError: transformers does not know the architecture.
        UsageError: a method that this model cannot have.
    """
    if setup.method == "full":
        return None
    return adapter_file_bytes(build(setup.model_copy(update={"method": SIXTEEN_BIT.get(setup.method, setup.method)})))
