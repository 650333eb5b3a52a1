"""What hits say of their frames."""

from service.search.results import FrameEvidence


def relevance_of(frame: FrameEvidence) -> float:
    """The relevance of a frame, which must have one."""
    assert frame.relevance is not None
    return frame.relevance
