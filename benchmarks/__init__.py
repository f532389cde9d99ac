"""How fast the kernel is, as ratios to bare aiohttp and to bare imports. Run it with ``python -m benchmarks``."""

__all__: list[str] = []
