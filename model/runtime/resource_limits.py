"""Limits that a process sets for itself."""

import resource
from collections.abc import Iterable


def lower_limits(limits: Iterable[tuple[int, int, int]]) -> None:
    """Set limits of this process, none of them above what it has.

    Args:
        limits: the kind, as `resource.RLIMIT_AS`, and the soft and the hard limit.

    Raises:
        OSError: the system refuses a limit.
    """
    for kind, soft, hard in limits:
        most = resource.getrlimit(kind)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        try:
            resource.setrlimit(kind, (soft, hard))
        except ValueError as error:
            raise OSError(str(error)) from error
