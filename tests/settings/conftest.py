from pathlib import Path

import pytest

from settings.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with an empty ``agentapp.yaml``."""
    return Project(tmp_path).write("")
