"""A closed-form start of the two projections: canonical correlation of the published features.

It takes a minute, gives a baseline that training has to beat, and saves the first epochs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from model.data.stills import CaptionedStills
from model.data.views import Views
from model.families.lgdn.network import CLASS_SOFTNESS, LGDN
from model.runtime.preprocessing import TextTokenizer
from model.settings import TrainConfig

_CAPTIONS_PER_ITEM = 2
_IMAGE_RIDGE, _TEXT_RIDGE = 1.0, 0.5
# of the projection to where another encoder puts an image, relative to the features' mean variance
_REGRESSION_RIDGE = 1.0


def _inverse_root(covariance: Tensor, ridge: float) -> Tensor:
    """(C + ridge · mean variance · I)^-½. Shape [H, H]."""
    strength = ridge * covariance.diagonal().mean()
    values, vectors = torch.linalg.eigh(covariance + strength * torch.eye(len(covariance)))
    root: Tensor = vectors @ torch.diag(values.clamp_min(1e-8).rsqrt()) @ vectors.T
    return root


def canonical_correlation(x: Tensor, y: Tensor, dim: int) -> tuple[nn.Linear, nn.Linear]:
    """Regularised CCA of pairs, each direction weighted by its correlation.

    Shapes x [n, Hx], y [n, Hy] → linear maps Hx → dim and Hy → dim.
    Directions beyond what the data has are zeros.
    """
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    root_x, root_y = (
        _inverse_root(x.T @ x / len(x), _IMAGE_RIDGE),
        _inverse_root(y.T @ y / len(y), _TEXT_RIDGE),
    )
    left, correlation, right = torch.linalg.svd(root_x @ (x.T @ y / len(x)) @ root_y)
    rank = min(dim, len(correlation))
    maps = []
    for root, basis, mean in ((root_x, left, mean_x), (root_y, right.T, mean_y)):
        weight = torch.zeros(dim, len(mean))
        weight[:rank] = (root @ basis[:, :rank] * correlation[:rank]).T
        linear = nn.Linear(len(mean), dim)
        linear.weight.data.copy_(weight)
        linear.bias.data.copy_(-weight @ mean)
        maps.append(linear)
    return maps[0], maps[1]


def ridge_regression(x: Tensor, y: Tensor) -> nn.Linear:
    """The linear map from x to y with the smallest squared error, kept small by a ridge.

    Shapes x [n, Hx], y [n, D] → linear map Hx → D.
    """
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    covariance = x.T @ x / len(x)
    ridge = _REGRESSION_RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    weight = torch.linalg.solve(covariance + ridge, x.T @ y / len(x)).T
    linear = nn.Linear(x.shape[1], y.shape[1])
    linear.weight.data.copy_(weight)
    linear.bias.data.copy_(mean_y - weight @ mean_x)
    return linear


@torch.no_grad()
def start_projections(
    model: LGDN,
    views: Views,
    stills: CaptionedStills,
    tokenizer: TextTokenizer,
    class_names: Sequence[str],
    settings: TrainConfig,
) -> None:
    """Set both towers' projections from the plain views and the first captions of the training items.

    An item of several images counts as their mean. Where there are another encoder's embeddings of the
    images, these are correlated with the texts, and the images' own projection approximates the result.

    If the classes have names, each class is projected to the text embedding of its name.
    """
    was_training = model.training
    model.eval()
    online = model.online
    images, texts = [], []
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
        for start in range(0, len(stills.images), 128):
            rows = np.arange(start, min(start + 128, len(stills.images)))
            frames = views.plain(rows)
            prepared = online.image.prepare(frames) if frames.dtype == torch.uint8 else frames
            images.append(online.image(prepared)[0])
        captions = [c for group in stills.captions for c in group[:_CAPTIONS_PER_ITEM]]
        owners = [i for i, group in enumerate(stills.captions) for _ in group[:_CAPTIONS_PER_ITEM]]
        for start in range(0, len(captions), 256):
            tokens = tokenizer(captions[start : start + 256])
            _, pooled = online.text(
                torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask)
            )
            texts.append(pooled.float())
    by_image = torch.cat(images)
    features = _by_item(by_image, stills)
    if stills.taught is not None and model.teacher_projection is not None:
        taught = torch.from_numpy(stills.taught[:, 0])
        known, text = canonical_correlation(
            _by_item(taught, stills)[owners], torch.cat(texts), model.config.dim
        )
        model.teacher_projection.load_state_dict(known.state_dict())
        frame = ridge_regression(by_image, known(taught))
    else:
        frame, text = canonical_correlation(features[owners], torch.cat(texts), model.config.dim)
    online.frame_projection.load_state_dict(frame.state_dict())
    online.text_projection.load_state_dict(text.state_dict())
    if class_names and online.classifier is not None and online.class_projection is not None:
        tokens = tokenizer([f"a photo of a {name}" for name in class_names])
        names = online.text_projection(
            online.text(torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask))[1]
        )
        names = names - names.mean(0)
        shares = torch.softmax(online.classifier(features) / CLASS_SOFTNESS, -1)
        length = online.frame_projection(features).norm(dim=-1).mean() / (shares @ names).norm(dim=-1).mean()
        online.class_projection.weight.copy_((settings.class_share * length * names).T)
    model.reset_momentum()
    model.train(was_training)


def _by_item(features: Tensor, stills: CaptionedStills) -> Tensor:
    """The mean over each item's images. Shape [images, H] → [items, H]."""
    return torch.stack([features[list(item)].mean(0) for item in stills.items])
