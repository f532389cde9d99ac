"""What every test has."""

from postgres import describe_postgres


def pytest_report_header() -> str:
    """Say which Postgres the tests use."""
    return describe_postgres()
