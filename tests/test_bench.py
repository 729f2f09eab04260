"""The benchmarks that need another machine run here on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_benchmark_for_a_gpu_runs_and_counts(tmp_path: Path) -> None:
    save = tmp_path / "found.json"
    command = [sys.executable, str(ROOT / "bench/train_gpu.py"), "--tiny", "--save", str(save)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(save.read_text())
    for side in ("packed", "unpacked"):
        assert found[side]["tokens_per_second"] > 0
        assert 0 < found[side]["share_of_gemm_peak"] < 1
    assert found["packed"]["tokens"] == found["unpacked"]["tokens"]
    assert found["packed"]["packed_share"] > 0.85
