"""What a merge did, beside the merged weights: `merge.json`."""

from typing import Literal

from pydantic import Field

from rankwise.records.base import Record

Rounding = Literal["stochastic", "nearest"]


class MergedTensor(Record):
    """One weight that was changed."""

    tensor: str = Field(description="Its name in the files.")
    changes: tuple[str, ...] = Field(description="What was done to it, in order.")
    delta_norm: float | None = Field(description="Frobenius norm of the adapter's update; null where none was taken.")
    quantisation_error: float | None = Field(
        description="Frobenius norm of base less dequantised base; null where nothing was quantised."
    )


class MergedAdapter(Record):
    """An adapter that went in."""

    path: str
    sha256: str = Field(description="Of adapter_model.safetensors.")
    weight: float = Field(description="1 where a single adapter was merged as it is.")


class Merge(Record):
    """The merge that made a folder of weights."""

    version: Literal[1] = 1
    how: Literal["sum", "linear", "ties", "dare_linear", "dare_ties", "undone"]
    density: float | None = Field(description="Share of each update that TIES or DARE keeps; null for the others.")
    seed: int | None = Field(description="Of what DARE drops; null for the others.")
    base: str = Field(description="Folder of the base.")
    base_hash: str | None = Field(description="Of its weights and config.json; null where it was not asked for.")
    stored_as: Literal["as-loaded", "nf4", "int8"] = Field(
        description="How the base's linear weights were held in training, and so in this merge."
    )
    rounding: Rounding = Field(
        description="Of what changed, to 16 bits. `stochastic`: up or down by chance, so that small changes stay."
    )
    adapters: tuple[MergedAdapter, ...]
    copied: int = Field(description="Tensors whose bytes were copied.")
    changed: tuple[MergedTensor, ...]
    largest_tensor_bytes: int
    bytes: int = Field(description="Of all weights.")
    seconds: float = Field(description="Planning and writing, files on disk.")
    undone_difference: float | None = Field(
        None, description="Largest difference of a number from the base, after a merge was undone."
    )
    undone_equal: float | None = Field(None, description="Share of the numbers that are the base's, bit for bit.")
