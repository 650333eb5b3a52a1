"""The index of words over `texts`, by which Lance finds lines and ranks them by BM25.

Words are found in any script, Chinese and Thai included (ICU's dictionaries), and compared without case and
accents. There is no stemmer and no list of stop words: both belong to one language, and a library has lines
in many.
"""

import lance

WORDS = "text_words"


def index_words(texts: lance.LanceDataset, *, anew: bool) -> bool:
    """Make the index, or add the rows to it that it lacks. → Whether the table has a new version.

    Args:
        texts: the latest version of the table.
        anew: make it anew.
    """
    fragments = {fragment.fragment_id for fragment in texts.get_fragments()}
    if not fragments:
        return False
    indexed = _indexed_fragments(texts)
    if anew or indexed is None:
        texts.create_scalar_index(
            "text",
            "INVERTED",
            name=WORDS,
            replace=True,
            base_tokenizer="icu/split",
            stem=False,
            remove_stop_words=False,
            lower_case=True,
            ascii_folding=True,
            max_token_length=None,
            with_position=False,
        )
        return True
    if fragments <= indexed:
        return False
    texts.optimize.optimize_indices(index_names=[WORDS])
    return True


def has_words(texts: lance.LanceDataset) -> bool:
    """Whether a version of the table has the index."""
    return _indexed_fragments(texts) is not None


def _indexed_fragments(texts: lance.LanceDataset) -> set[int] | None:
    """The fragments whose rows are in the index; None where there is none."""
    for index in texts.describe_indices():
        if index.name == WORDS:
            return {number for segment in index.segments for number in segment.fragment_ids}
    return None
