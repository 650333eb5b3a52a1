"""What the head of a model card says."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.backbones.model_card import languages_of, licence_of


@pytest.mark.parametrize(
    ("card", "licence", "languages"),
    [
        ("---\nlicense: mit\nlanguage: en\n---\n# A model\n", "mit", ("en",)),
        (
            "---\r\nlicense: other\r\nlicense_name: its-own\r\nlanguage: [de, mul]\r\n---\r\n",
            "its-own",
            ("de", "mul"),
        ),
        ("---\nlicense: 3\nlanguage: [no, English, pt-BR, 7]\n---\n", "not stated", ()),
        ("---\nlicense: [mit\n---\n", "not stated", ()),
        ("---\n- mit\n---\n", "not stated", ()),
        ("# A model\n---\nlicense: mit\n---\n", "not stated", ()),
        (None, "not stated", ()),
    ],
)
def test_a_card(tmp_path: Path, card: str | None, licence: str, languages: tuple[str, ...]) -> None:
    if card is not None:
        (tmp_path / "README.md").write_bytes(card.encode())
    assert (licence_of(tmp_path), languages_of(tmp_path)) == (licence, languages)
