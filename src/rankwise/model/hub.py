"""A model's files from the Hugging Face hub, or from its cache on this machine."""

import sys
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from rankwise.errors import ModelError

# Top-level text and safetensors only: no pickles, no `original/` or `onnx/` copies, no second set of Mistral weights.
WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "merges.txt", "vocab.txt", "README.md"]
UNWANTED = ["*/*", "consolidated*", "*.bin", "*.pt", "*.pth"]


def from_hub(name: str, *, download: bool) -> Path:
    """Download, or find in the hub cache. huggingface_hub reads HF_HUB_OFFLINE, HF_HOME and HF_TOKEN itself.

    Raises:
        ModelError: no such model, gated, or not here and the hub cannot be reached.
    """
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        return Path(
            snapshot_download(name, allow_patterns=WANTED, ignore_patterns=UNWANTED, local_files_only=not download)
        )
    except GatedRepoError:
        raise ModelError(
            f"{name} is gated on the Hugging Face hub",
            expected="an account that has accepted its licence, with its token in HF_TOKEN",
            fix=f"accept it on https://huggingface.co/{name} and set HF_TOKEN",
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(
            f"{name}: neither a local folder nor a model on the Hugging Face hub",
            expected="the id of a public model, or of a private one with HF_TOKEN set",
            fix="check the spelling, or use `embedded`",
        ) from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError):
        raise ModelError(
            f"{name} is not on this machine, and the hub cannot be reached (HF_HUB_OFFLINE or no network)",
            expected="a model in the hub cache (HF_HOME), a local folder, or `embedded`",
            fix="unset HF_HUB_OFFLINE and connect, or copy the model's folder here and give its path",
        ) from None
    except (OSError, ValueError) as error:  # the message may quote request headers, so only its kind is shown
        raise ModelError(
            f"{name} could not be fetched from the Hugging Face hub ({type(error).__name__})",
            expected="a reachable hub and enough disk under HF_HOME",
            fix="try again, or download it elsewhere and give its folder",
        ) from None
