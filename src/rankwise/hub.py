"""The Hugging Face hub: ids of models and datasets, and their files as a folder. The client is loaded on use."""

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from rankwise.errors import DataError, ModelError, RankwiseError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WITH_SPLIT = re.compile(r"(.*[^:/]):([A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)?)", re.DOTALL)
_LIKE_A_FILE = re.compile(r"\.(jsonl?|csv|tsv|txt|parquet|arrow|gz|zst|zip|ya?ml|xlsx?)$", re.IGNORECASE)


class _Words(NamedTuple):
    """What an error says of a kind of repository."""

    error: Callable[[str, str, str, str], RankwiseError]  # name, what, expected, fix
    page: str
    unknown: str
    here: str
    instead: str
    copy: str


def _model_error(name: str, what: str, expected: str, fix: str) -> RankwiseError:
    return ModelError(f"{name} {what}", expected=expected, fix=fix)


def _data_error(name: str, what: str, expected: str, fix: str) -> RankwiseError:
    return DataError(name, None, f"it {what}", expected=expected, fix=fix)


_KINDS = {
    "model": _Words(
        _model_error,
        "https://huggingface.co/{}",
        "is neither a local folder nor a model on the Hugging Face hub",
        "a model in the hub cache (HF_HOME), a local folder, or `embedded`",
        "or use `embedded`",
        "copy the model's folder here and give its path",
    ),
    "dataset": _Words(
        _data_error,
        "https://huggingface.co/datasets/{}",
        "is neither a file or folder here nor a dataset on the Hugging Face hub",
        "a dataset in the hub cache (HF_HOME), or a file or folder of rows",
        "or give the path of a file or folder",
        "copy its files here and give their folder",
    ),
}


def dataset_id(source: Path) -> str | None:
    """`org/name` or `org/name@revision` where a path that is not there can be read as a dataset's id (a split is left
    out), else None.

    What ends like a data file is a file that is missing, never an id.
    """
    name, _ = split_of(source)
    return name if HUB_ID.fullmatch(name.partition("@")[0]) and not _LIKE_A_FILE.search(name) else None


def split_of(source: Path) -> tuple[str, str | None]:
    """`org/name:test`, `folder:test` or `org/name:config/test` as (`org/name`, `test` or `config/test`); the split is
    None where none is named.
    """
    found = _WITH_SPLIT.fullmatch(str(source))
    if found and (
        "/" not in found[2] or HUB_ID.fullmatch(found[1].partition("@")[0])
    ):  # folders have no configurations
        return found[1], found[2]
    return str(source), None


def dataset_files(name: str) -> list[str] | None:
    """Paths of all files of a dataset, as the hub says or as the cache remembers from the last download.

    None where neither tells; `snapshot` then meets the same fault and says it.
    """
    from huggingface_hub import HfApi, get_cached_repo_tree

    repository, _, revision = name.partition("@")
    with suppress(Exception):
        return [file.rfilename for file in HfApi().dataset_info(repository, revision=revision or None).siblings or []]
    with suppress(Exception):
        tree = get_cached_repo_tree(repository, repo_type="dataset", revision=revision or None)
        return [file.path for file in tree]
    return None


def snapshot(
    name: str,
    kind: Literal["model", "dataset"],
    *,
    wanted: Sequence[str],
    unwanted: Sequence[str] = (),
    download: bool = True,
) -> Path:
    """Download, or find in the hub cache. huggingface_hub reads HF_HUB_OFFLINE, HF_HOME and HF_TOKEN itself.

    Args:
        name: `org/name`, with `@` and a branch, tag or commit where it is not the main branch.
        wanted, unwanted: patterns of file names; `*` also passes folders.
        download: False: found only where the cache on this machine has it.

    Raises:
        ModelError, DataError (by kind): no such repository, gated, or not here and the hub cannot be reached.
    """
    from huggingface_hub import errors, snapshot_download  # here: loading it takes as long as a plan takes to make
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    words = _KINDS[kind]
    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                repo_type=kind,
                allow_patterns=list(wanted),
                ignore_patterns=list(unwanted),
                local_files_only=not download,
            )
        )
    except errors.GatedRepoError:
        raise words.error(
            name,
            "is gated on the Hugging Face hub",
            "an account that has accepted its licence, with its token in HF_TOKEN",
            f"accept it on {words.page.format(name)} and set HF_TOKEN",
        ) from None
    except errors.RevisionNotFoundError:
        raise words.error(
            name,
            f"has no revision {revision!r} on the Hugging Face hub",
            "a branch, a tag or a whole commit hash after the @",
            f"see {words.page.format(repository)}/commits",
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise words.error(
            name,
            words.unknown,
            f"the id of a public {kind}, or of a private one with HF_TOKEN set",
            f"check the spelling, {words.instead}",
        ) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError):
        raise words.error(
            name,
            "is not on this machine, and the hub cannot be reached (HF_HUB_OFFLINE or no network)",
            words.here,
            f"unset HF_HUB_OFFLINE and connect, or {words.copy}",
        ) from None
    except (OSError, ValueError) as error:  # the message may quote request headers, so only its kind is shown
        raise words.error(
            name,
            f"could not be fetched from the Hugging Face hub ({type(error).__name__})",
            "a reachable hub and enough disk under HF_HOME",
            "try again, or download it elsewhere and give its folder",
        ) from None
