"""Errors of the client as those that the commands show."""

from collections.abc import Iterator
from contextlib import contextmanager

from model.runtime.errors import InputError, ReelfindError


@contextmanager
def shown_errors() -> Iterator[None]:
    """Raise in the place of an error of the client one with the same message.

    Raises:
        InputError: the service refuses the request or its key.
        ReelfindError: the service does not answer, or says that it cannot.
    """
    # Import late: most commands need no HTTP.
    from service.client import ClientError, ForbiddenError, InvalidRequestError, NoKeyError, NotFoundError

    try:
        yield
    except NoKeyError as error:
        raise InputError(f"{error} Set REELFIND_KEY to a key of `reelfind keys create`.") from error
    except (InvalidRequestError, NotFoundError, ForbiddenError) as error:
        raise InputError(str(error)) from error
    except ClientError as error:
        raise ReelfindError(str(error)) from error
