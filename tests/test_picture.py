"""The graph as a picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from workspace import Folder, folder, pretend, record_run

from workflow.cli import main
from workflow.picture import ago, mermaid, show, terminal

RECIPES = Path("recipes")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """`small` with everything built but votes and what follows; one log."""
    found = folder(tmp_path / "it")
    pretend(found, "small", leave=("voted", "scores", "report"))
    adapter = found.graph("small").node("adapter")
    record_run(found, adapter, seconds=75, gpus=0, threads=2)
    log = found.path("logs/adapter", f"{adapter.address}.log")
    log.parent.mkdir(parents=True)
    log.write_text("x")
    monkeypatch.chdir(found.root)
    monkeypatch.delenv("TUNEMAKE_STORE", raising=False)
    return found


def test_every_product_stands_below_an_input(place: Folder) -> None:
    header, *lines = terminal(place.draw(), "small").splitlines()
    assert header.split() == ["product", "address", "state", "size", "age", "took", "also", "from"]
    depth = {line.lstrip(" │└├─").split()[0]: len(line) - len(line.lstrip(" │└├─")) for line in lines}
    assert len(lines) == len(depth) == 19
    flow = ["rows_train", "shards_train", "adapter", "merged", "predictions", "voted", "scores", "report"]
    assert [depth[name] for name in flow] == [0, 3, 6, 9, 12, 15, 18, 21]


def test_what_is_built_has_a_size_an_age_and_a_time(place: Folder) -> None:
    lines = {line.lstrip(" │└├─").split()[0]: line for line in terminal(place.draw(), "small").splitlines()}
    assert re.search(r"  built +\d+ B +\d+ s +1 min 15 s", lines["adapter"])
    assert lines["voted"].endswith("not built")


def test_lines_are_cut_at_the_terminal(place: Folder) -> None:
    lines = terminal(place.draw(), "small", width=60).splitlines()
    assert max(map(len, lines)) == 60
    assert any(line.endswith("…") for line in lines)


def test_logs_that_exist_are_listed(place: Folder) -> None:
    address = place.graph("small").node("adapter").address
    assert show("small", RECIPES, place.store).endswith(f"\n\nadapter  logs/adapter/{address}.log")


def test_mermaid_has_every_product_and_edge(place: Folder) -> None:
    head, *lines = mermaid(place.draw(), "small").splitlines()
    assert head == "flowchart TD"
    node = re.compile(r' {4}(n\d+)\["([^"]+)<br/>[0-9a-f]{8}<br/>([^"]+)"\]:::(built|open)')
    nodes = {found[1]: found for line in lines if (found := node.fullmatch(line))}
    assert len(nodes) == 19
    assert {found[2]: found[4] for found in nodes.values()}["voted"] == "open"
    edges = [re.fullmatch(r" {4}(n\d+) --> (n\d+)", line) for line in lines]
    named = {(nodes[edge[1]][2], nodes[edge[2]][2]) for edge in edges if edge}
    assert {("shards_train", "adapter"), ("merged", "greedy"), ("rows_train", "overlap")} <= named
    assert ("rows_test", "scores") not in named  # the votes come from them already
    adapter = next(name for name, found in nodes.items() if found[2] == "adapter")
    address = place.graph("small").node("adapter").address
    assert f'    click {adapter} href "logs/adapter/{address}.log"' in lines


def test_the_command_line(place: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "recipes/small.yaml"]) == 0
    assert capsys.readouterr().out.startswith("product ")
    assert main(["show", "small", "--mermaid"]) == 0
    assert capsys.readouterr().out.startswith("flowchart TD\n")
    assert main(["show", "nope"]) == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "60 s"), (60, "1 min"), (7300, "2 h"), (200_000, "2 d")]
)
def test_ages(seconds: float, text: str) -> None:
    assert ago(seconds) == text
