"""What tests of several files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from accidents import build
from forked_training import Forks
from workspace import Folder, folder
from zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Processes that start in milliseconds, with stand-ins for training and predicting."""
    server = Zygote()
    yield server
    server.close()


@pytest.fixture(scope="session")
def made(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder in which the recipe `small` is built, with stand-ins; tests only read it."""
    place = folder(tmp_path_factory.mktemp("made") / "it")
    build(zygote, place)
    return place


@pytest.fixture(scope="session")
def server() -> Iterator[Forks]:
    """Real trainings whose ranks start in a moment."""
    started = Forks()
    yield started
    started.close()
