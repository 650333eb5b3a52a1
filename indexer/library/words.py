"""The index of words over `texts`, by which Lance finds lines and ranks them by BM25.

Words are found in any script, Chinese and Thai included (ICU's dictionaries), and compared without case and
accents. There is no stemmer and no list of stop words: both belong to one language, and a library has lines
in many.
"""

import lance

WORDS, KINDS = "text_words", "text_kinds"


def index_words(texts: lance.LanceDataset, *, anew: bool) -> bool:
    """Make the index, or add the rows to it that it lacks. → Whether the table has a new version.

    Beside it there is a small one of the kinds of lines, for a search among lines of some kinds alone.

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
        texts.create_scalar_index("kind", "BITMAP", name=KINDS, replace=True)
        return True
    if fragments <= indexed:
        return False
    texts.optimize.optimize_indices(index_names=[WORDS, KINDS])
    return True


def has_words(texts: lance.LanceDataset) -> bool:
    """Whether a version of the table has the index."""
    return _indexed_fragments(texts) is not None


def _indexed_fragments(texts: lance.LanceDataset) -> set[int] | None:
    """The fragments whose rows are in both indices; None where one is missing."""
    found = {
        index.name: {number for segment in index.segments for number in segment.fragment_ids}
        for index in texts.describe_indices()
    }
    return found[WORDS] & found[KINDS] if {WORDS, KINDS} <= found.keys() else None
