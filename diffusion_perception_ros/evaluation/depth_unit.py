"""Whether a recording's depth may have another unit than it is taken for: asked, never assumed."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.datasets import EvaluationDataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.run import Predictor


IMAGES = 5
"""Images that are compared."""
_FAR_OFF = 2.2
"""Times that measured and predicted depth may differ: metric models err by less."""
_AGREEMENT = 1.6
"""Times by which the images may differ in that."""
_UNITS = {
    5.0: "5000 per metre, as TUM",
    4.0: "a quarter of a millimetre",
    10.0: "a tenth of a millimetre",
    0.1: "a centimetre",
}


def unit_question(dataset: EvaluationDataset, predictor: Predictor, scale: float) -> str | None:
    """A sentence that asks about the unit; None if it looks right, or the model gives no metres.

    Args:
        dataset: with depth that was read with `scale`.
        predictor: of metric depth.
        scale: metres per stored unit.
    """
    output = predictor.card.output("depth")
    if output is None or output.quantity != "metric_depth":
        return None
    ratios = []
    for index in sorted({int(place) for place in np.linspace(0, len(dataset) - 1, IMAGES)}):
        try:
            sample = dataset[index]
            predicted = predictor.predict(sample.rgb, sample.intrinsics, {"depth"}).depth
        except InputError:
            continue
        if sample.depth is None or predicted is None:
            continue
        both = np.isfinite(sample.depth) & np.isfinite(predicted)
        if both.any():
            ratios.append(float(np.median(sample.depth[both] / predicted[both])))
    if len(ratios) < min(2, len(dataset)) or max(ratios) > _AGREEMENT * min(ratios):
        return None
    ratio = float(np.median(ratios))
    if 1 / _FAR_OFF < ratio < _FAR_OFF:
        return None
    unit = min(_UNITS, key=lambda factor: abs(np.log(ratio / factor)))
    guess = f" (such as {_UNITS[unit]}: --depth-scale {scale / unit:g})" if 0.7 < ratio / unit < 1.4 else ""
    return (
        f"the depth of {dataset.name} is {ratio:.2g} times as far as the model sees it in {len(ratios)} images: is "
        f"its "
        f"unit {1000 * scale:g} mm? If not, give --depth-scale METRES{guess}"
    )
