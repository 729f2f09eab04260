"""Which jobs want a GPU, on a machine that has some."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from test_field_map import ASKED, MAIN

from tests import workspace
from workflow import settle


@pytest.mark.parametrize("gpus", [[], ["0", "1"]])
def test_an_endpoint_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: list[str]) -> None:
    place = workspace.folder(tmp_path / "w")
    monkeypatch.chdir(place.root)
    monkeypatch.setattr(settle, "visible_gpus", lambda: gpus)
    wanted = {}
    for name, text in (("asked", ASKED), ("small", MAIN)):
        place.path(f"recipes/{name}.yaml").write_text(text)
        node = place.graph(name).node("predictions")
        settle.settle(place.store, node)
        wildcards = SimpleNamespace(address=node.address)
        wanted[name] = settle.gpus_for("predictions")(wildcards)
    assert wanted == {"asked": 0, "small": min(1, len(gpus))}
