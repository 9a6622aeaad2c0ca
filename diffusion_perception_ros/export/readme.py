"""The README of a model folder: one frame, which published and trained models fill with what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffusion_perception_ros.families.recipe import Recipe
from diffusion_perception_ros.inference.card import InputSize, ModelCard


def model_readme(card: ModelCard, facts: Sequence[str], sections: Mapping[str, str] | None = None) -> str:
    """Markdown: what the model is, facts about it, further sections, and how far its graphs are from PyTorch.

    Args:
        card: Of the folder.
        facts: One line each.
        sections: Text by its heading.
    """
    listed = "\n".join(f"- {fact}" for fact in facts)
    further = "".join(f"\n## {title}\n\n{text.strip()}\n" for title, text in (sections or {}).items())
    return f"""# {card.name}

{card.description}.

{listed}
{further}
## Graph against PyTorch

Absolute differences, in the units of the graph's outputs.

| output | largest difference | mean |
|---|---|---|
{parity_rows(card)}
"""


def published_readme(recipe: Recipe, card: ModelCard) -> str:
    """Of a published checkpoint: where it is from, and under which terms."""
    terms = recipe.licence
    restrictions = [
        text
        for applies, text in (
            (terms.non_commercial, "**Not for commercial use.**"),
            (terms.gated, "Its weights are given out only to those who accept the terms."),
        )
        if applies
    ]
    published = ", ".join(f"[{name}](https://huggingface.co/{name})" for name in recipe.checkpoints)
    return model_readme(
        card,
        (
            f"Checkpoint: {card.source.checkpoint} (published: {published})",
            f"Trained on: {card.source.training_data}",
            f"Licence of the weights: {' '.join([f'{terms.spdx}, {terms.url}.', *restrictions])}",
            f"Gives: {', '.join(f'{output.task} ({output.quantity})' for output in card.outputs)}",
            f"Image of the network: {size_in_words(card.input.size)}; precision {card.precision}; "
            f"files {', '.join(card.files)}",
            f"Made with: `{card.source.command or 'diffusion_perception_ros.export.exporter'}`",
        ),
    )


def size_in_words(size: InputSize) -> str:
    """Of the network's image, and what happens to images of another size."""
    if size.rule == "fixed":
        other = "stretched to it" if size.fit == "stretch" else "fitted into it, their border repeated"
        return f"{size.width}x{size.height} pixels; images of another aspect are {other}"
    if size.rule == "longest_side":
        return f"longest side {size.longest_side} pixels, the aspect kept"
    return f"about {size.area} pixels, the aspect kept, sides rounded to multiples of {size.multiple_of}"


def parity_rows(card: ModelCard) -> str:
    """Rows of a Markdown table: output, largest and mean difference of the graph from PyTorch."""
    names = [name.removesuffix("_max") for name in card.parity if name.endswith("_max")]
    return "\n".join(
        f"| {name} | {card.parity[f'{name}_max']:g} | {card.parity[f'{name}_mean']:g} |" for name in names
    )
