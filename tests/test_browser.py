"""The table of predictions: what it holds, and the page in a real browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tiny_report import HOSTILE, ROWS, folder, inputs, job, page

from workflow.report.browser import Kept, Worth, script
from workflow.report.inputs import Inputs

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


def digest(number: int) -> bytes:
    return (number * 7919 % 1000).to_bytes(16)


def kept(many: int, **limits: int) -> Kept:
    found = Kept(**limits)
    for number in range(many):
        if found.wants(digest(number)):
            found.add(digest(number), f"{number:04d}", {"id": f"{number:04d}", "text": HOSTILE})
    return found


def test_a_page_holds_the_rows_with_the_smallest_digests() -> None:
    found = kept(900, rows=50)
    smallest = sorted(range(900), key=digest)[:50]
    assert [record["id"] for record in json.loads(found.data)] == sorted(f"{n:04d}" for n in smallest)
    assert (found.seen, found.left_out) == (900, 850)
    assert 20 < len(kept(900, letters=5000).held) < 60
    assert kept(1, letters=1).left_out == 0


def test_no_text_ends_the_script_element() -> None:
    data = str(kept(3).data)
    assert "<" not in data and json.loads(data)[0]["text"] == HOSTILE
    assert "</script" not in script()[0] and "<!--" not in script()[0]


def test_worth_is_that_of_the_row(tmp_path: Path) -> None:
    lines = [
        {"id": name, "group": None, "values": {"f1": {"greedy": value}}}
        for name, value in (("b", 0.5), ("d", 1))
    ]
    scores = folder(tmp_path, "scores", {"items.jsonl": lines}, {})
    worth = Worth(Inputs.of(job(tmp_path, {"scores": scores})))
    half, whole = ({"f1": {"greedy": value}} for value in (0.5, 1))
    assert [worth.of(name) for name in "abcde"] == [{}, half, {}, whole, {}]
    without = Inputs.of(job(tmp_path, {}))
    assert Worth(without).of("a") == {}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("report")
    return page(job(root, inputs(root / "store")))


def opened(text: str, folder: Path) -> str:
    """What the browser makes of a page."""
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    run = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu",
         f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=4000", "--dump-dom", path.as_uri()],
        capture_output=True, timeout=90,
    )  # fmt: skip
    return run.stdout.decode()


@needs_browser
def test_the_page_runs_its_own_script_only(report: str, tmp_path: Path) -> None:
    shown = opened(report, tmp_path)
    table = shown[shown.index('id="browser"') :]
    assert table.count('aria-expanded="false"') == 25 and "page 1 of 2" in table
    strange = report.replace("</body>", "<script>document.title = 'run'</script></body>")
    assert "<title>run</title>" not in opened(strange, tmp_path)


ACTIONS = """
const $ = (selector) => document.querySelector(selector), all = (s) => [...document.querySelectorAll(s)];
const told = { options: all("select option").map((option) => option.textContent) };
const choose = (name) => { $("select").value = name; $("select").dispatchEvent(new Event("change")); };
choose("wrong");
told.wrong = $("[role=status]").textContent;
$("#browser tbody button").click();
told.diff = $("#browser .diff").innerHTML;
told.detail = $("#browser .detail dd").textContent;
told.vote = $("#browser .detail p:last-child").textContent;
choose("all");
all("#browser .controls button")[1].click();
told.page = all("#browser tbody button").map((button) => button.textContent);
$("input").value = "PROBLEM 7 ";
$("input").dispatchEvent(new Event("input"));
setTimeout(() => {
  told.found = all("#browser tbody button").map((button) => button.textContent);
  told.injected = all("#browser img, #browser script").length;
  document.body.innerHTML = "<pre></pre>";
  $("pre").textContent = JSON.stringify(told);
}, 300);
"""


@needs_browser
def test_rows_are_filtered_searched_and_opened(report: str, tmp_path: Path) -> None:
    without = re.sub(r"<meta http-equiv=[^>]*>", "", report)
    shown = opened(without.replace("</body>", f"<script>{ACTIONS}</script></body>"), tmp_path)
    found = re.search(r"<pre>(.*)</pre>", shown, re.S)
    assert found, shown[-3000:]
    told: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert told["options"][:3] == [f"all rows ({ROWS})", "right (32)", "wrong (8)"]
    assert told["wrong"] == f"8 of {ROWS} rows"
    assert told["diff"] == "<del>A</del><ins>B</ins>"
    assert told["detail"] == f"Problem 0 {HOSTILE[:-1]}"
    assert told["vote"].startswith("Vote: B ✗ (B: 5, without an answer: 0)")
    assert told["page"] == [f"r{n:03d}#<b>" for n in range(25, 40)]
    assert told["found"] == ["r007#<b>"] and told["injected"] == 0
