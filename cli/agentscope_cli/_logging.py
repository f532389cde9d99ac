"""Logging of the command line: one line an event, as text or as JSON, on standard error."""

import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields given by ``extra``, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        import orjson

        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _PLAIN})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class IdsFilter(logging.Filter):
    """Adds the ids of where a record comes from, its request, session, invocation and trace, unless it has them."""

    def __init__(self, find: Callable[[], Mapping[str, str]]) -> None:
        super().__init__()
        self._find = find

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through."""
        for name, value in self._find().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class TextFormatter(logging.Formatter):
    """One line an event, with the id of its request where it has one."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback."""
        line = super().formatMessage(record)
        request_id = getattr(record, "request_id", None)
        # Many messages say it themselves.
        return line if request_id is None or request_id in line else f"{line} [{request_id}]"


_LIBRARIES = (
    "aiohttp",
    "alembic",
    "anthropic",
    "asyncio",
    "asyncpg",
    "httpcore2",
    "httpx2",
    "mcp",
    "openai",
    "sqlalchemy",
    "watchfiles",
)


def configure_logging(level: str, form: str) -> None:
    """Log this program's records and the app's at ``level``, and those of our libraries from warnings up."""
    # Not at the top: it is not needed to look at the commands' help.
    from agentscope.telemetry import log_context

    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(IdsFilter(log_context))
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in _LIBRARIES:
        # Quiet at debug, too: some of them log whole requests, with what people wrote in them.
        logging.getLogger(library).setLevel(max(logging.WARNING, root.level))
    # With each batch of spans it says again that the collector is gone; our own adapter says it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
