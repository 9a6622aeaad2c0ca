"""The README of an exported model folder."""

from __future__ import annotations

from diffusion_perception_ros.families.recipe import Recipe
from diffusion_perception_ros.inference.card import ModelCard


def model_readme(recipe: Recipe, card: ModelCard) -> str:
    """What the model is, where it is from, under which terms, and how far its graphs are from PyTorch."""
    terms = recipe.licence
    restrictions = [
        text
        for applies, text in (
            (terms.non_commercial, "**Not for commercial use.**"),
            (terms.gated, "Its weights are given out only to those who accept the terms."),
        )
        if applies
    ]
    size = card.input.size
    shape = f"{size.width}x{size.height}" if size.rule == "fixed" else f"longest side {size.longest_side}, any aspect"
    rows = "\n".join(f"| {name} | {value:g} |" for name, value in card.parity.items())
    published = ", ".join(f"[{name}](https://huggingface.co/{name})" for name in recipe.checkpoints)
    return f"""# {card.name}

{card.description}.

- Checkpoint: {card.source.checkpoint} (published: {published})
- Trained on: {card.source.training_data}
- Licence of the weights: {" ".join([f"{terms.spdx}, {terms.url}.", *restrictions])}
- Gives: {", ".join(f"{output.task} ({output.quantity})" for output in card.outputs)}
- Picture of the network: {shape}; precision {card.precision}; files {", ".join(card.files)}
- Made with: `{card.source.command or "diffusion_perception_ros.export.exporter"}`

## Differences to PyTorch

Absolute, in the units of the graph's outputs, on pictures of the bundled demo clip and on random ones.

| | |
|---|---|
{rows}
"""
