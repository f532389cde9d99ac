"""A vendor's failure, in the same words for every vendor."""

from agentscope.errors import AgentScopeError


class ModelError(AgentScopeError):
    """A model call failed.

    ``slot`` is the model's name in ``agentapp.yaml``, ``detail`` the vendor's own words without secrets,
    ``status`` its HTTP status, None when there was no answer. ``summary`` says what happened in a few words that
    may be shown to a client of the app.
    """

    summary = "the model call failed"
    advice = ""

    def __init__(self, slot: str, detail: str = "", *, status: int | None = None) -> None:
        super().__init__(slot, detail)
        self.slot = slot
        self.detail = detail
        self.status = status

    def __str__(self) -> str:
        status = f" (HTTP {self.status})" if self.status is not None else ""
        detail = f": {self.detail}" if self.detail else ""
        advice = f"; {self.advice.format(slot=self.slot)}" if self.advice else ""
        return f"model {self.slot!r}: {self.summary}{status}{detail}{advice}"


class ModelAuthenticationError(ModelError):
    """The vendor refused the key, or the key may not do this."""

    summary = "the vendor refused the credentials"
    advice = "check models.{slot}.api_key"


class ModelRateLimitError(ModelError):
    """Too many calls or tokens. ``retry_after`` is the vendor's advice in seconds, None when it gave none."""

    summary = "the vendor's rate limit is reached"

    def __init__(
        self, slot: str, detail: str = "", *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(slot, detail, status=status)
        self.retry_after = retry_after


class ModelTimeoutError(ModelError):
    """No answer in time."""

    summary = "the vendor did not answer in time"
    advice = "models.{slot}.client_kwargs.timeout sets the limit in seconds"


class ModelOverloadedError(ModelError):
    """The vendor is out of capacity or failing on its side."""

    summary = "the vendor is overloaded or failing"


class ModelBadRequestError(ModelError):
    """The vendor understood the call and refused it: an unknown model, a wrong parameter, too long an input."""

    summary = "the vendor refused the request"


class ModelConnectionError(ModelError):
    """The vendor can't be reached, or the connection was cut before the answer was whole."""

    summary = "the connection to the vendor failed"
    advice = "check models.{slot}.base_url and the network"
