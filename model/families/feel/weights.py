"""The published weights that FEEL starts from."""

from __future__ import annotations

from model.backbones.published import text_weights
from model.families.feel.network import Feel
from model.runtime.errors import InputError


def load_published(model: Feel) -> None:
    """Load the language encoder, and start the cross-modal Transformer from its layers, as HERO does.

    Raises:
        InputError: the weights cannot be found, do not fit the model, or the layers of both do not fit.
    """
    source = text_weights(model.config)
    if source is None:
        return
    model.text.load(source)
    if model.config.cross_from_text:
        start_cross_from_text(model)


def start_cross_from_text(model: Feel) -> None:
    """Copy every second layer of twelve to six layers: 1, 3, …, 11, counted from 0; likewise other depths.

    Raises:
        InputError: the layers have other sizes, or there are too few.
    """
    config, shape = model.config, model.text.shape
    sizes = {"hidden": shape.hidden, "heads": shape.heads, "intermediate": shape.intermediate}
    different = [f"model.{name}={value}" for name, value in sizes.items() if getattr(config, name) != value]
    if different or config.cross_layers > shape.layers:
        remedy = ", ".join(different) or f"model.cross_layers={shape.layers} or fewer"
        raise InputError(
            f"the cross-modal Transformer cannot start from the layers of model.text={config.text}: set "
            f"{remedy}, or model.cross_from_text=false"
        )
    stride = shape.layers // config.cross_layers
    for i, layer in enumerate(model.converter.cross.stack.layers):
        layer.load_state_dict(model.text.layers[stride * (i + 1) - 1].state_dict())
