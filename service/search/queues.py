"""What the searches of one bundle share: the text encoder, the vector index, the matching head, the cores."""

from collections.abc import Callable
from dataclasses import dataclass

from model.runtime.bundle import Bundle
from model.runtime.cores import Cores
from service.search.match_queue import MatchQueue
from service.search.shared_calls import CallObserver
from service.search.text_queue import TextQueue
from service.search.vector_queue import VectorQueue


@dataclass(frozen=True)
class CallObservers:
    """What is told of each call.

    Attributes:
        texts: the texts of a call of the text encoder, and its searches.
        vectors: the searches of a call of the vector index that may be shared.
        match: the pairs of a call of the matching head, and its searches.
    """

    texts: CallObserver | None = None
    vectors: Callable[[int], None] | None = None
    match: CallObserver | None = None


class SearchQueues:
    """The queues of one bundle. They outlive the snapshots that are searched with it.

    Attributes:
        bundle: the model.
        texts: runs its text encoder.
        vectors: searches the vector indexes of its snapshots.
        match: runs its matching head.
    """

    def __init__(
        self,
        bundle: Bundle,
        observers: CallObservers | None = None,
        *,
        shared_calls: bool = True,
        cores: Cores | None = None,
    ) -> None:
        """Without `shared_calls`, each search has its own calls of the text encoder and of the index.

        `cores` are those that the threads of searches take turns on; None: as many as this process may use.
        """
        observers = observers or CallObservers()
        self.bundle = bundle
        self._cores = cores or Cores()
        self.texts = TextQueue(bundle, observers.texts, is_shared=shared_calls, cores=self._cores)
        self.vectors = VectorQueue(observers.vectors, is_shared=shared_calls, cores=self._cores)
        self.match = MatchQueue(bundle, observers.match, cores=self._cores)
        self._shared_calls = shared_calls

    def for_bundle(self, bundle: Bundle) -> "SearchQueues":
        """The queues of another bundle, with the same observers."""
        observers = CallObservers(self.texts.observe, self.vectors.observe, self.match.observe)
        return SearchQueues(bundle, observers, shared_calls=self._shared_calls, cores=self._cores)

    def close(self) -> None:
        """End the searches that wait, with `NotReadyError`."""
        for queue in (self.texts, self.vectors, self.match):
            queue.close()
