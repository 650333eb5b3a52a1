"""Opens the stages that a run asks for. Their modules, and their packages, are loaded only then."""

from indexer.options import IndexOptions
from indexer.stages.base import AnyStage
from model.runtime.bundle import Provider
from model.runtime.cores import available_cores


def open_stages(options: IndexOptions, provider: Provider) -> list[AnyStage]:
    """The stages that the options ask for, in the order in which they run.

    Args:
        options: of the run.
        provider: where models run.

    Raises:
        InputError: a package or a model is missing; the message says what to do.
    """
    stages: list[AnyStage] = []
    threads = options.threads or available_cores()
    if options.speech is not None:
        from indexer.stages.speech import SpeechStage

        stages.append(SpeechStage(options.speech, provider, threads))
    if options.screen:
        from indexer.stages.screen import ScreenStage

        stages.append(ScreenStage(provider, threads))
    if options.shots:
        from indexer.stages.shots import ShotsStage

        stages.append(ShotsStage(threads))
    return stages
