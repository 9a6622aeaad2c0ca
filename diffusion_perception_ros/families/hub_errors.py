"""What can go wrong with the Hugging Face hub, in one sentence with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from diffusion_perception_ros.errors import InputError


def page_of(repository: str) -> str:
    """Where a repository's terms and revisions are."""
    return f"https://huggingface.co/{repository}"


def refusal(error: Exception, repository: str, revision: str | None) -> InputError | None:
    """What is wrong with what was asked for; None if the hub could not be reached or failed itself.

    Args:
        repository: Hub id.
        revision: Branch, tag or commit, None = the default branch.
    """
    if isinstance(error, GatedRepoError):
        return InputError(
            f"{repository} is gated: accept its terms on {page_of(repository)}, then log in with 'hf auth login' or "
            "set HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{repository} has no revision '{revision}': see {page_of(repository)}/commits/main")
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return InputError(
            f"the hub has no repository '{repository}' any more, or it is private: see {page_of(repository)}, and log "
            "in with 'hf auth login' if it is yours"
        )
    if isinstance(error, OfflineModeIsEnabled):
        return InputError(f"{repository} cannot be downloaded because HF_HUB_OFFLINE is set: unset it to fetch models")
    return None


@contextmanager
def hub_errors(repository: str, revision: str | None) -> Iterator[None]:
    """Turns every error of the hub or of the way to it into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the client's HTTP library, and so the errors of a lost connection, vary by version
        if refused := refusal(error, repository, revision):
            raise refused from error
        if isinstance(error, HfHubHTTPError):
            raise InputError(
                f"the hub answered with an error for {repository}: {first_line(error)}; try again later, it goes on "
                "where it stopped"
            ) from error
        raise InputError(
            f"the hub cannot be reached for {repository} ({first_line(error)}): run the command again when there is "
            "network, it goes on where it stopped"
        ) from error


def first_line(error: Exception) -> str:
    """Of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
