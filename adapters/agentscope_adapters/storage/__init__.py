"""Sessions in a database, SQLite or Postgres: the tables, the repository and the migrations."""

__all__: list[str] = []
