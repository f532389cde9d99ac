"""The secrets of a configuration, taken out of whatever a library says."""

from collections.abc import Iterable, Iterator


class Secrets:
    """Words of a configuration that no text may hold."""

    __slots__ = ("_words",)

    def __init__(self, words: Iterable[str]) -> None:
        # The longest first, for one may be part of another.
        self._words = sorted({word for word in words if word}, key=len, reverse=True)

    def scrub(self, text: str) -> str:
        """The text with ``***`` in place of each secret."""
        for word in self._words:
            text = text.replace(word, "***")
        return text

    def scrub_error(self, error: BaseException) -> None:
        """Take the secrets out of an exception and its causes: a traceback prints the text of each."""
        for cause in causes(error):
            cause.args = tuple(self.scrub(arg) if isinstance(arg, str) else arg for arg in cause.args)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what led to it, the latest first."""
    # Not the contexts: they lead on to what the caller was handling when it called.
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__
