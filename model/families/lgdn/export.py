"""LGDN's part of an export: the graphs of a bundle, and what the bundle says of the model."""

from __future__ import annotations

from model.families.base import Graph, InferenceOptions, ModelDescription
from model.families.lgdn.graphs import graphs_of, tokens_per_frame
from model.families.lgdn.inference import inference_model
from model.families.lgdn.network import LGDN
from model.families.lgdn.salience import salience_dim


def graphs(model: LGDN, options: InferenceOptions | None = None, *, matcher: bool = True) -> dict[str, Graph]:
    """Frame, segment and text encoder, and the fusion as the matcher; the model is put in evaluation mode.

    Raises:
        InputError: an option that the model does not have.
    """
    for towers in (model.online, model.momentum):
        towers.text.trim(model.config.context_length)
    return graphs_of(inference_model(model.eval(), options), matcher=matcher)


def describe_model(model: LGDN, options: InferenceOptions | None = None) -> ModelDescription:
    """Widths, sizes and the strategy of SFP.

    Raises:
        InputError: an option that the model does not have.
    """
    inference, config = inference_model(model.eval(), options), model.config
    return ModelDescription(
        embedding_dim=config.dim,
        salience_dim=salience_dim(inference.strategy, config.dim),
        image_size=config.image_size,
        context_length=config.context_length,
        frames_per_segment=config.frames,
        num_salient_frames=config.num_salient_frames,
        salience_strategy=inference.strategy,
        tokens_per_frame=tokens_per_frame(inference),
        hidden_dim=inference.towers.token_width,
        text_hidden_dim=inference.towers.text_token_width,
    )
