"""The report: figures as in the inputs, text escaped, nothing from the network, the same bytes twice."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_predictions import manifest

from workflow.errors import BuildError
from workflow.products.report import make
from workflow.report.samples import SHOWN
from workflow.store.build import Job
from workflow.tokens import TokenRow, digest_of_row, shard_bytes

HOSTILE = "<script>alert('x')</script><img src=http://evil.example/x onerror=y>&amp;\u202e"
RECIPE: dict[str, Any] = {
    "voting": {
        "answer": {"pattern": "answer: ([A-D])", "match": "last"},
        "ties": "first",
        "rule": "majority",
    },
    "model": {"base": "Org/Model-7B", "revision": "a" * 40, "dtype": "bfloat16"},
    "dataset": {"train": {"path": "</pre><script>", "format": "round1"}},
    "prompt": {"template": "p.jinja", "max_length": 120, "overflow": "drop"},
    "tuning": {"method": "lora", "r": 8, "lora_alpha": 32},
    "sampling": {"n": 5, "temperature": 0.7},
}
ROWS, GOLD = 40, "ABCD"
OVERLAP = {"exact_test_rows": 3, "normalised_test_rows": 11, "similar_test_rows": 7, "longest_match": 50}
OVERLAP |= {"contaminated_test_rows": 12, "test_rows": 1300}
FACTS = {
    "steps": 1000, "parameters": 987654, "trained_parameters": 4321, "validation_rows": 50,
    "weights_of_step": 900,
}  # fmt: skip

FIGURES = """\
Tuning +33.3 points, voting +9.2 points.
Tuning: 32.1 % → 65.4 % of 1,234 test rows right.
Voting: 61.1 % → 70.3 % of 1,234 test rows right. A difference of this size may be chance.
vote of 5 draws 70.3 65.3 to 74.4 1,234 98.7 1.3
majority class 30.0 27.1 to 36.2 1,234 – –
only this model is right on 500 rows, only the base model on 89: p &lt; 0.0001
not scored: 66 of 1300 rows
rows 517 1,300
rows made into tokens 500 40
rows dropped as too long 17 17
rows over the limit, kept 0 6
tokens 34,985 2,801
tokens trained on 7,654
12 of 1,300 test rows (0.9%) are among the training rows: 3 word for word, 11 but for case, spaces and
Training rows. 500 rows of 34,985 tokens; the longest has 120. 7,654 tokens are trained, 21.9% of all.
17 of 517 rows (3.3%) met the limits: 17 left out; lost with them: 17 answers. 2 rows (0.4%) repeating
12 test rows are among the training rows too
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


def shard(lengths: list[int]) -> bytes:
    none = np.zeros(101 + 20, np.int32)
    rows = [TokenRow(f"{i}", none[:n], none[:n].astype(np.uint8), n) for i, n in enumerate(lengths)]
    return shard_bytes(rows, [digest_of_row(row.id.encode()) for row in rows])


def folder(root: Path, product: str, files: dict[str, Any], counts: dict[str, Any]) -> Path:
    """A product's folder: bytes stay, lists become JSON lines, other values JSON."""
    path = root / hashlib.blake2b(product.encode(), digest_size=16).hexdigest()
    path.mkdir(parents=True)
    for name, content in files.items():
        lines = content if isinstance(content, list) else [content]
        text = content if isinstance(content, bytes) else "".join(json.dumps(x) + "\n" for x in lines)
        (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return manifest(path, counts)


def rows() -> list[dict[str, Any]]:
    prompts = [
        {"problem": f"Problem {i} {HOSTILE[:-1]}", "options": ["1", "2", "3", "<4>"]} for i in range(ROWS)
    ]
    return [
        {"id": f"r{i:03d}#<b>", "prompt": prompt, "gold": [GOLD[i % 4]]} for i, prompt in enumerate(prompts)
    ]


def answered(right: list[bool]) -> list[dict[str, Any]]:
    lines = []
    for i, row in enumerate(rows()):
        texts = [f"{HOSTILE[:-1]} answer: {GOLD[(i + (not good)) % 4]}" for good in right]
        reason = "stop" if i else "length"
        lines.append({"id": row["id"], "draws": [{"text": t, "finish_reason": reason} for t in texts]})
    return lines


def mixed(one: list[dict[str, Any]], other: list[dict[str, Any]], every: int) -> list[dict[str, Any]]:
    return [b if i % every == 0 else a for i, (a, b) in enumerate(zip(one, other, strict=True))]


def voted(predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = []
    for row, line in zip(rows(), predictions, strict=True):
        votes = Counter(draw["text"][-1] for draw in line["draws"])
        answer, most = max(votes.items(), key=lambda item: (item[1], item[0]))
        fields = {"id": row["id"], "gold": row["gold"], "answer": answer, "correct": answer in row["gold"]}
        lines.append({**fields, "votes": votes, "abstentions": 0, "agreement": most / 5, "tie": False})
    return lines


def scores() -> dict[str, Any]:
    accuracies = {"base": 0.321, "greedy": 0.654, "single": 0.611, "draws": 0.605, "voted": 0.703}
    rates = {"n": 1234, "parse_rate": 0.987, "length_rate": 0.013}
    systems: dict[str, Any] = {
        name: {"accuracy": a, "low": a - 0.0504, "high": a + 0.0413, **rates}
        for name, a in accuracies.items()
    }
    none = {"accuracy": 0.3, "parse_rate": None, "length_rate": None}
    tests = {
        "greedy_vs_base": {"better": 500, "worse": 89, "p": 1e-20, "difference": 0.333},
        "voted_vs_single": {"better": 120, "worse": 99, "p": 0.2, "difference": 0.092},
    }
    tests = {name: {**test, "low": 0, "high": 0.4, "method": "mcnemar"} for name, test in tests.items()}
    found = {"rows": 1300, "scored": 1234, "draws": 5, "majority_answer": "B", "tests": tests}
    return {**found, "systems": {**systems, "majority_class": {**systems["base"], **none}}}


def loss() -> list[dict[str, Any]]:
    steps = [{"step": s, "epoch": s / 500, "loss": 2 / (1 + s / 100) + 0.25} for s in range(1, 1001)]
    rates = [{**line, "learning_rate": 1e-4 * (1 - line["step"] / 1000)} for line in steps]
    for line in rates[99::100]:
        line["eval_loss"] = line["loss"] + 0.1
    return [*rates, {"step": 1001, "loss": float("nan"), "epoch": 2.0}]


def inputs(root: Path) -> dict[str, Path]:
    base, greedy = answered([False]), mixed(answered([True]), answered([False]), 3)
    draws = mixed(answered([True] * 5), answered([False, True, True, True, False]), 4)
    draws = mixed(draws, answered([False] * 5), 5)
    lengths = [20 + i * 37 % 101 for i in range(500)]
    limits = {"dropped": 17, "truncated": 0, "cut_tokens": 0, "over_limit": 0, "lost_answers": 17}
    shards = {"rows": 500, "tokens": 34985, "trained_tokens": 7654, "longest": 120, "duplicates": 2, **limits}
    made: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "rows_train": ({"rows.jsonl": []}, {"rows": 517, "bad_rows": 1, "bad": [f"line 3: {HOSTILE}"]}),
        "rows_test": ({"rows.jsonl": rows()}, {"rows": 1300, "bad_rows": 0, "bad": []}),
        "overlap": ({"overlap.json": {}}, OVERLAP),
        "shards_train": ({"shard-000000.safetensors": shard(lengths)}, shards),
        "shards_test": (
            {"shard-000000.safetensors": shard(lengths[:40])},
            {**shards, "rows": 40, "over_limit": 6, "tokens": 2801},
        ),
        "adapter": ({"loss.jsonl": loss(), "training.json": FACTS}, {"steps": 1000}),
        "merged": ({"config.json": {}}, {"tensors": 201}),
        "base": ({"predictions.jsonl": base}, {"rows": ROWS}),
        "greedy": ({"predictions.jsonl": greedy}, {"rows": ROWS}),
        "predictions": ({"predictions.jsonl": draws}, {"rows": ROWS, "draws": 5 * ROWS}),
        "voted": ({"voted.jsonl": voted(draws)}, {"rows": ROWS}),
        "scores": ({"scores.json": scores()}, {"rows": 1300}),
    }
    return {role: folder(root, role, *parts) for role, parts in made.items()}


def job(root: Path, found: dict[str, Path], recipe: dict[str, Any] = RECIPE, runs: bool = True) -> Job:
    fixed = {"host": f"h-{HOSTILE}", "threads": 2, "gpus": 1, "peak_rss_bytes": 3 << 30}
    records = {role: root / f"{role}.run.json" for role in found if runs}
    for i, path in enumerate(records.values()):
        versions = {"torch": "2.13.0", "peft": f"0.2{i // 6}"}
        path.write_text(json.dumps({**fixed, "seconds": 61.0 * i, "versions": versions}))
    (root / "out").mkdir(exist_ok=True, parents=True)
    return Job(
        {"recipe": recipe}, found, {}, root / "out", root / "work", root / "pieces", run_records=records
    )


def page(job: Job) -> str:
    make(job)
    return (job.out / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, str]:
    root = tmp_path_factory.mktemp("whole")
    return (everything := job(root, inputs(root / "store"))), page(everything)


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html[html.index("<body>") :]))


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
    assert not re.search(r"<(script|img|iframe|link|object|embed|a|image)\b", html)
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
    assert html.count("Other draws:") == SHOWN


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
    assert "draw 3</span>" in html and "no answer" not in html and "Vote:" not in html


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
