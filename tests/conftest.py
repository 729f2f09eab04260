"""What tests of several files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Processes that start in milliseconds, with stand-ins for training and predicting."""
    server = Zygote()
    yield server
    server.close()
