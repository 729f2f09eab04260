"""The report: figures as in the inputs, text escaped, nothing from the network, the same bytes twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny_report import HOSTILE, RECIPE, folder, inputs, job, page

from workflow.errors import BuildError
from workflow.products.report import make
from workflow.report.inputs import Inputs
from workflow.report.runs import answering
from workflow.report.samples import SHOWN
from workflow.store.build import Job

FIGURES = """\
Tuning +33.3 points, voting +9.2 points.
Tuning: 32.1 % → 65.4 % of 1,234 test rows right.
Voting: 61.1 % → 70.3 % of 1,234 test rows right. A difference of this size may be chance.
vote of 5 draws 70.3 65.3 to 74.4 1,234 98.7 1.3 9 min 09 s
majority class 30.0 27.1 to 36.2 1,234 – – –
Tuning method lora, r 8, lora_alpha 32
Answers n 5, temperature 0.7
maj@k: mean accuracy of the vote of k draws, over all sets of k draws and 1,234 rows; shaded: 95 % interval.
own 5 – 60.0 9.9 1.0 to 20.0
base model, greedy 40 1 2 3 -
this model 1.2500 1.1250 to 1.5000 3.490 40
999 tokens of 40 answers.
only this model is right on 500 rows, only the base model on 89: p &lt; 0.0001
not scored: 66 of 1300 rows
rows 517 1,300
rows made into tokens 500 40
rows dropped as too long 17 17
rows over the limit, kept 0 6
tokens 34,985 2,801
tokens trained on 7,654
12 of 1,300 test rows (0.9%) are shown by training rows: 3 word for word, 11 but for case, spaces and
Training rows. 500 rows of 34,985 tokens; the longest has 120. 7,654 tokens are trained, 21.9% of all.
17 of 517 rows (3.3%) met the limits: 17 left out; lost with them: 17 answers. 2 rows (0.4%) repeating
12 test rows are shown by training rows: 3 word for word, 11 but for case and spaces
1,000 optimizer steps, 2 epochs, 4,321 of 987,654 parameters trained (0.438 %).
Loss 2.23 at step 1, 0.4318 at the end; lowest 0.4318 at step 1,000.
50 rows held out for validation; the weights are those of step 900.
1 logged loss was not finite.
Each point is the mean of 4 logged values.
500 rows, 5 tokens to a bar; median 70, longest 120. Dashed: max_length 120.
training 5 min 05 s
together 1 h 07 min
3.2 GB
torch 2.13.0
peft 0.20 (for rows_train,"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, str]:
    root = tmp_path_factory.mktemp("whole")
    return (everything := job(root, inputs(root / "store"))), page(everything)


def plain(html: str) -> str:
    """What is read without the script."""
    body = re.sub(r"<script.*?</script>", " ", html[html.index("<body>") :], flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_figures_are_those_of_the_inputs(whole: tuple[Job, str]) -> None:
    text = plain(whole[1])
    for expected in FIGURES.splitlines():
        assert expected in text, expected


def test_provenance_names_every_product(whole: tuple[Job, str]) -> None:
    for role, path in whole[0].inputs.items():
        html = whole[1]
        assert role in html and path.name in html
        manifest = json.loads((path / "manifest.json").read_text())
        assert all(f"sha256 {file['sha256']}" in html for file in manifest["files"].values())


def test_text_is_escaped_and_nothing_is_loaded(whole: tuple[Job, str]) -> None:
    html = whole[1]
    assert "alert(&#39;x&#39;)" in html
    assert "&lt;/pre&gt;&lt;script&gt;" in html
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", html, flags=re.S)
    assert [json.loads(scripts[0])[0]["prompt"][0][1], scripts[1][:2]] == [f"Problem 0 {HOSTILE[:-1]}", "//"]
    html = html.replace(scripts[0], "").replace(scripts[1], "")
    assert html.count("<script") == 2
    assert not re.search(r"<(img|iframe|link|object|embed|a|image)\b", html)
    assert not re.search(r"<[^>]*\s(src|href|action|srcset|on\w+)\s*=", html)
    assert not re.search(r'xlink:href="[^#]', html)
    assert not re.search(r"url\([^#]|@import|@font-face", html)
    assert "default-src 'none'" in html


def test_samples_tell_where_it_helped(whole: tuple[Job, str]) -> None:
    assert make(whole[0]) == {"products": 12, "samples": SHOWN}
    html = whole[1]
    assert html.count("<article>") == SHOWN
    for kind in ("tuning put it right", "voting put the first draw right", "still wrong"):
        assert html.count(f"{kind}</span>") == 4
    assert "draw 3</span>" in html
    assert "draw 4</span>" not in html
    assert plain(html).count("Other draws:") == SHOWN


def test_same_bytes_twice_whatever_the_order(whole: tuple[Job, str], tmp_path: Path) -> None:
    everything, html = whole
    (tmp_path / "out").mkdir()
    recipe, found, records = (
        dict(reversed(part.items())) for part in (RECIPE, everything.inputs, everything.run_records)
    )
    turned = Job({"recipe": recipe}, found, {}, tmp_path / "out", tmp_path, tmp_path, run_records=records)
    assert page(turned) == html


TESTED = ["rows_test", "shards_test", "base", "greedy", "predictions", "voted", "scores", "overlap"]
TRAINED = ["overlap", "rows_train", "shards_train", "adapter", "merged"]


@pytest.mark.parametrize("missing", [["base"], ["voted", "scores"], TESTED, TRAINED, TESTED + TRAINED])
def test_roles_may_be_absent(whole: tuple[Job, str], tmp_path: Path, missing: list[str]) -> None:
    found = {role: path for role, path in whole[0].inputs.items() if role not in missing}
    text = plain(page(job(tmp_path, found, runs=False)))
    assert ("not recorded" in text) == bool(found)
    assert ("Not scored." in text) == ("scores" in missing)


def test_a_length_that_is_the_models_own_has_no_line(whole: tuple[Job, str], tmp_path: Path) -> None:
    prompt = {**RECIPE["prompt"], "max_length": "model"}
    html = page(job(tmp_path, whole[0].inputs, {**RECIPE, "prompt": prompt}))
    assert "Dashed" not in html and "length of training rows" in html


def test_texts_stand_beside_their_references(whole: tuple[Job, str], tmp_path: Path) -> None:
    found = {role: path for role, path in whole[0].inputs.items() if role not in ("voted", "scores")}
    html = page(job(tmp_path, found, {**RECIPE, "voting": None}))
    assert html.count("<article>") == SHOWN and plain(html).count("Gold: ") == SHOWN
    assert "draw 3</span>" in html and "no answer" not in plain(html) and "Vote:" not in plain(html)


def test_a_product_in_two_roles_counts_once(whole: tuple[Job, str], tmp_path: Path) -> None:
    found = dict.fromkeys(("base", "greedy"), whole[0].inputs["greedy"])
    text = plain(page(job(tmp_path, found, {"model": {"base": "m"}})))
    assert "the same product as answers of the base model" in text
    assert "together 0.0 s" in text


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    adapter = folder(tmp_path, "adapter", {"loss.jsonl": []}, {})
    (adapter / "loss.jsonl").write_text('{"step": 1, "loss": 2}\n{"ste')
    with pytest.raises(BuildError, match=r"loss\.jsonl:2: damaged"):
        page(job(tmp_path, {"adapter": adapter}))


def test_unscored_and_damaged_run_records(tmp_path: Path) -> None:
    empty = {"rows": 7, "scored": 0, "draws": 3, "systems": {}, "tests": {}}
    found = {"scores": folder(tmp_path, "scores", {"scores.json": empty}, {})}
    made = job(tmp_path, found)
    made.run_records["scores"].write_text("{")
    text = plain(page(made))
    assert "Not scored: none of the 7 test rows has a gold answer." in text
    assert "not recorded" in text


def test_the_vote_takes_what_all_voters_take() -> None:
    seconds = {"base": 1.0, "predictions": 3.0, "voter short": 4.0, "greedy": None}
    runs = {role: {} if value is None else {"seconds": value} for role, value in seconds.items()}
    found = Inputs({role: Path(role) for role in runs}, {}, runs, {})
    assert answering(found) == {"base": 1.0, "draws": 3.0, "voted": 7.0}
    runs["voter short"] = {}
    assert "voted" not in answering(found)
    assert found.label("voter short") == "answers of voter short"
