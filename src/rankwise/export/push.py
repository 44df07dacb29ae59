"""A folder pushed to a repository of the Hugging Face hub. The client reads HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE by
itself; the token is never passed on, shown or logged. Torch-free.
"""

import sys
from pathlib import Path

from rankwise.errors import HubError, UsageError
from rankwise.hub import HUB_ID


def require_pushable(repo: str) -> None:
    """Before anything is written: a sane name and a token.

    Raises:
        UsageError: the name is none of the hub's.
        HubError: HF_TOKEN is not set, or the hub is switched off.
    """
    from huggingface_hub import constants, get_token

    if not HUB_ID.fullmatch(repo):
        raise UsageError(f"{repo!r} names no repository", expected="org/name, as on huggingface.co")
    if constants.HF_HUB_OFFLINE:
        raise HubError(
            "the hub is switched off (HF_HUB_OFFLINE)", expected="a reachable hub", fix="unset HF_HUB_OFFLINE"
        )
    if not get_token():
        raise HubError("there is no token", expected="a write token in HF_TOKEN", fix="export HF_TOKEN=hf_…")


def push(folder: Path, repo: str, *, private: bool) -> str:
    """Make the repository where it is not there, and upload every file of `folder` in one commit; returns its URL.

    Raises:
        HubError: refused, or not reachable. Nothing of the request is quoted: headers hold the token.
    """
    from huggingface_hub import HfApi, errors
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi(library_name="rankwise")
    try:
        made = api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Published by Rankwise")
        return str(made)
    except errors.OfflineModeIsEnabled:
        raise HubError("the hub is switched off (HF_HUB_OFFLINE)", fix="unset HF_HUB_OFFLINE") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        raise _refused(repo, status) from None
    except Exception as error:  # whatever its client raised, whose message may quote headers: only its kind is shown
        raise HubError(
            f"{repo} could not be pushed ({type(error).__name__})",
            expected="a hub that can be reached",
            fix="try again with a connection; a push that failed leaves no half commit",
        ) from None


def _refused(repo: str, status: int | None) -> HubError:
    known = {
        401: ("the token is not valid", "set HF_TOKEN to a token with write access"),
        403: ("the token may not write there", f"use a token that may write to {repo.partition('/')[0]}"),
        404: ("there is no such repository, or the token may not see it", "check the name and the token"),
    }
    why, fix = known.get(status or 0, (f"HTTP status {status}", "try again later"))
    return HubError(f"the hub refused {repo}: {why}", expected="a token with write access", fix=fix)
