"""One file or folder for each outside system; the kernel finds them by name and imports what a project uses."""

__all__: list[str] = []
