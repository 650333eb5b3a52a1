"""Videos and moments found on a set of features, against each query and each video by themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from model.data.feature_sets import open_feature_source
from model.evaluation.moments.features import evaluate_features
from model.families.feel.encoder import FeelEncoder
from model.families.feel.network import Feel
from model.runtime.moments import MomentOptions, SpanLimits
from model.runtime.preprocessing import TextTokenizer
from model.settings import DataConfig
from tests.support.feature_sets import write_howto100m, write_tvr
from tests.support.feel_runs import make_mask_tokenizer
from tests.support.tiny_feel import stir, tiny_config


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> FeelEncoder:
    torch.manual_seed(0)
    path = make_mask_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")
    config = tiny_config(feature_dim=12, frames=8, context_length=24)
    return FeelEncoder(stir(Feel(config)), TextTokenizer.from_file(path, 24))


def test_all_at_once_finds_what_each_alone_finds(encoder: FeelEncoder, tmp_path: Path) -> None:
    """More videos than are encoded at once, of which the long ones have pooled vectors."""
    tiny = write_tvr(tmp_path, count=72)
    data = DataConfig(**tiny.settings("tvr", max_vectors=8, long_videos="pool"))
    source = open_feature_source(data, "train")
    assert len(source) == 36
    limits = SpanLimits(0, 3)
    found = evaluate_features(encoder, source, MomentOptions(limits=limits, num_videos=36, num_moments=7))
    assert len(found.queries) == 108
    assert len({source.item(i).every_seconds for i in range(36)}) == 2, "some are pooled, some are not"
    ranks = []
    for place in (0, 50, 107):
        moment = found.queries[place]
        query = encoder.queries([moment.text])
        expected = []
        cosines = []
        for row in range(36):
            item = source.item(row)
            frames, mask = encoder.videos([item.features], [item.text])
            cosine = float(encoder.scores(query, frames, mask)[0, 0])
            cosines.append(cosine)
            zero = np.zeros(1, np.int64)
            start, end = encoder.spans(query, frames, mask, zero, zero)
            for first in range(len(item.features)):
                for last in range(first, min(first + 4, len(item.features))):
                    score = np.exp(20 * cosine) * float(start[0, first]) * float(end[0, last])
                    seconds = first * item.every_seconds, (last + 1) * item.every_seconds
                    expected.append((score, source.numbers[row], *np.minimum(seconds, item.duration_seconds)))
        best = sorted(expected, reverse=True)[:7]
        rows = found.submission.tasks["VCMR"][moment.moment_id]
        np.testing.assert_allclose(rows.score, [each[0] for each in best], rtol=1e-3)
        assert rows.video.tolist() == [each[1] for each in best]
        np.testing.assert_allclose(rows.span, [each[2:] for each in best])
        target = cosines[source.item_ids.index(moment.video_id)]
        ranks.append(1 + sum(cosine > target for cosine in cosines))
        first_videos = found.submission.tasks["VR"][moment.moment_id].video
        assert first_videos[0] == source.numbers[int(np.argmax(cosines))]
        assert (
            found.submission.tasks["SVMR"][moment.moment_id].video[0]
            == source.numbers[source.item_ids.index(moment.video_id)]
        )
    assert found.retrieval["n"] == 108
    assert found.tasks["VR"]["r1"] == pytest.approx(found.retrieval["R@1"], abs=0.01)
    assert len(set(ranks)) > 1


def test_hidden_spans_give_a_submission_and_figures_of_videos_alone(
    encoder: FeelEncoder, tmp_path: Path
) -> None:
    said: list[str] = []
    data = DataConfig(**write_tvr(tmp_path).settings("tvr", max_vectors=8))
    source = open_feature_source(data, "test")
    found = evaluate_features(encoder, source, report=said.append)
    assert set(found.tasks) == {"VR", "VR_by_type"}
    assert set(found.submission.tasks) == {"VCMR", "SVMR", "VR"}
    assert said[-1] == "tvr test: 6 of 6 queries have no known span; moments are not measured"
    alone = evaluate_features(encoder, source, moments=False)
    assert set(alone.submission.tasks) == {"VR"}


def test_clips_have_nothing_to_ask(encoder: FeelEncoder, tmp_path: Path) -> None:
    data = DataConfig(**write_howto100m(tmp_path).settings("clips", max_vectors=8, clip_seconds=12.0))
    with pytest.raises(ValueError, match="clips train has no queries to measure with"):
        evaluate_features(encoder, open_feature_source(data, "train"))
