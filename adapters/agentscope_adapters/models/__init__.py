"""Chat models: one file a vendor."""

__all__: list[str] = []
