"""What can go wrong in a way a caller can act on: each class has its HTTP status, each message says what to do."""

from collections.abc import Sequence


class RolloutError(Exception):
    """The request could not be carried out."""

    status = 500
    title = "Internal error"

    def __init__(self, message: str = "", *, path: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())
        self.path = path


class Invalid(RolloutError):
    """The document has problems; each names its path and what to do."""

    status = 422
    title = "Invalid document"

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        path, message = problems[0]
        super().__init__(message, path=path)
        self.problems = tuple(problems)


class Malformed(RolloutError):
    """The body is not what it claims to be."""

    status = 400
    title = "Malformed request"


class Unauthenticated(RolloutError):
    """A key is required: send it as 'Authorization: Bearer KEY'."""

    status = 401
    title = "Key required"


class Forbidden(RolloutError):
    """The key does not allow this."""

    status = 403
    title = "Not allowed"


class NotFound(RolloutError):
    """There is no such thing here."""

    status = 404
    title = "Not found"


class Conflict(RolloutError):
    """Somebody else changed it meanwhile, or its status forbids the act."""

    status = 409
    title = "Conflict"


class TooLarge(RolloutError):
    """The body is larger than this service accepts."""

    status = 413
    title = "Too large"
