"""What the licence of a model's weights means for who runs it."""

from __future__ import annotations

from diffusion_perception_ros.inference.card import ModelCard


def notice(card: ModelCard) -> str | None:
    """What has to be said once when a model is started, None if there is nothing to say."""
    terms = card.licence_terms
    if terms is None or not terms.non_commercial:
        return None
    where = f", see {terms.url}" if terms.url else ""
    return f"the weights of model '{card.name}' are for non-commercial use only ({terms.spdx}{where})"
