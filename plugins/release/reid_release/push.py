"""Sends a release to Hugging Face."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, errors
from huggingface_hub.utils import validate_repo_id

from reidcore.errors import ReidError, UsageError


def check_repo(repo: str) -> None:
    """Raise UsageError for what is no USER/NAME, before any work."""
    try:
        if repo.count("/") != 1:
            raise errors.HFValidationError("it has no USER/")
        validate_repo_id(repo)
    except errors.HFValidationError as error:
        why = str(error).partition("\n")[0]
        raise UsageError(f"--push {repo!r}: expected USER/NAME: {why}") from None


def push(folder: Path, repo: str, private: bool) -> str:
    """Send a folder to a model, which is made if there is none; return its address.

    Raises UsageError where nobody is logged in or the login may not write, ReidError where the
    server cannot be reached. The folder stays as it is.
    """
    api = HfApi(library_name="reidcore")
    again = f"{folder} is complete; `reid release {folder} --push {repo}` sends it again"
    try:
        made = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message="Release by reidcore",
            ignore_patterns=[".*"],
        )
    except (errors.LocalTokenNotFoundError, errors.HfHubHTTPError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403):
            raise UsageError(
                f"--push {repo}: this login of Hugging Face may not write there, or there is none; "
                f"`hf auth login` makes one. {again}"
            ) from None
        raise ReidError(f"--push {repo}: {_line(error)}. {again}") from None
    except Exception as error:  # of the HTTP library, whichever it is, where there is no network
        raise ReidError(f"--push {repo}: it could not be sent: {_line(error)}. {again}") from None
    return str(made)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
