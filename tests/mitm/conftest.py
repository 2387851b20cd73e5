from pathlib import Path

import pytest

from tests.mitm.worlds import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)
