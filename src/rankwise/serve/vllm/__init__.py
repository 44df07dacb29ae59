"""The engine over vLLM: a server of our own, or one that is attached by its address."""

from rankwise.serve.vllm.command import VllmOptions
from rankwise.serve.vllm.engine import VllmEngine

__all__ = ["VllmEngine", "VllmOptions"]
