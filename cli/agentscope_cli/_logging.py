"""Logging of the command line: one line an event, as text or as JSON, on standard error."""

import logging
import sys
from datetime import UTC, datetime

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields given by ``extra``, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        import orjson

        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _PLAIN})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


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
)


def configure_logging(level: str, form: str) -> None:
    """Log this program's records and the app's at ``level``, and those of our libraries from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if form == "json" else logging.Formatter("%(levelname)s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in _LIBRARIES:
        # Quiet at debug, too: some of them log whole requests, with what people wrote in them.
        logging.getLogger(library).setLevel(max(logging.WARNING, root.level))
