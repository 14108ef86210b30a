"""The service over HTTP, and its refusals as one exception that says what to do."""

from types import TracebackType
from typing import Any

import httpx

from rollout.cli.settings import Remote

_TIMEOUT = 30.0


class Refused(Exception):
    """The service said no, or was not reached (`status` 0); the message is for people."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """A service; `with Api() as api` closes its connections."""

    def __init__(self, remote: Remote | None = None) -> None:
        remote = remote or Remote()
        if remote.key is None or not remote.key.get_secret_value().strip():
            raise Refused("no key: set ROLLOUT_KEY to a key of the service (its first start prints one)")
        self._url = remote.url.rstrip("/")
        self._http = httpx.Client(
            base_url=self._url,
            headers={"Authorization": f"Bearer {remote.key.get_secret_value()}"},
            timeout=_TIMEOUT,
        )

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, **query: str | None) -> Any:
        """The JSON answer of a GET.

        Raises:
            Refused: the service says no or is not there.
        """
        return self.ask("GET", path, query=query)

    def find(self, path: str, **query: str | None) -> Any | None:
        """Like `get`; None for what does not exist."""
        try:
            return self.get(path, **query)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, str | None] | None = None,
        patience: float = _TIMEOUT,
    ) -> Any:
        """The JSON answer of a request, awaited for so many seconds; raises Refused."""
        parameters = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            answer = self._http.request(method, f"/api/v1{path}", json=body, params=parameters, timeout=patience)
        except httpx.HTTPError as error:
            why = f"{self._url} cannot be reached ({type(error).__name__})"
            raise Refused(f"{why}; start it with 'rollout serve', or set ROLLOUT_URL") from error
        if answer.is_success:
            return answer.json()
        raise Refused(_message(answer), answer.status_code)


def _message(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        found = problem.get("problems") or [{"path": problem.get("path"), "message": problem["detail"]}]
        lines = [f"{each['path']}: {each['message']}" if each.get("path") else each["message"] for each in found]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"the answer {answer.status_code} is none of this service; check ROLLOUT_URL"
    return "\n".join(lines)
