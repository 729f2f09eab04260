"""What a disk refuses is said in one line, nothing is lost, and the same command goes on."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_store import Toy, planned, run
from workspace import Folder, command, environment, folder

from workflow.cleaning import Rules, clean
from workflow.disk import one_line, refusal, size
from workflow.errors import BuildError
from workflow.settle import settle
from workflow.store.build import Job, verify
from workflow.store.files import write_atomic
from workflow.store.leases import keep
from workflow.store.store import FORMAT, Store

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() or mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)):
        pytest.skip("file systems may not be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode


def fill(place: Path) -> Path:
    """Take all the space there is."""
    path = place / "ballast"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return path


def big(job: Job) -> dict[str, Any]:
    """Two parts, the first kept as work; together more than 1 MB."""
    (job.work / "first").write_bytes(b"x" * 300_000)
    (job.out / "file").write_bytes(b"x" * 900_000)
    return {"resumed": (job.work / "first").exists()}


def test_a_full_disk_while_making(small: Path) -> None:
    store = Store(small / "store")
    plan = planned(store)
    with pytest.raises(BuildError) as raised:
        run(store, plan, big)
    line = str(raised.value)
    assert line.startswith(f"{small}/store/toy/") and "No space left on device; " in line and "\n" not in line
    assert line.endswith("run the same command again, it goes on from here") and " free there" in line
    assert not [path for path in (store.root / "toy").iterdir() if path.is_dir()]
    assert [path.name for path in store.root.glob("work/*/*")] == ["first"]
    assert not mount("-o", "remount,size=4m", str(small))
    receipt = run(store, plan, big)
    assert receipt.manifest.counts == {"resumed": True}
    verify(store.folder("toy", receipt.key))


def test_a_full_disk_while_replacing(small: Path) -> None:
    path = small / "file"
    write_atomic(path, b"old" * 100)
    fill(small)
    with pytest.raises(BuildError, match=rf"^{path}: No space left on device; 0 bytes free there; free some"):
        write_atomic(path, b"new" * 10_000)
    assert path.read_bytes() == b"old" * 100
    assert sorted(entry.name for entry in small.iterdir()) == ["ballast", "file"]


def tunemake(place: Folder, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workflow", *arguments]
    return subprocess.run(
        command, cwd=place.root, env={**environment(), **more}, capture_output=True, text=True, timeout=60
    )


def settled(root: Path, store: Store) -> tuple[Folder, str]:
    """A folder whose rows of the test split are planned in `store`."""
    place = folder(root)
    node = place.graph("small").node("rows_test")
    settle(store, node)
    return place, node.address


def test_a_full_disk_in_a_job(small: Path, tmp_path: Path) -> None:
    """Store and log are on the full disk: one line, status 2; with space again the same command builds."""
    place, address = settled(tmp_path / "it", Store(small / "store"))
    ballast = fill(small)
    log = small / "log"
    arguments = ("rows", "--address", address, "--log", str(log))
    ran = tunemake(place, *arguments, TUNEMAKE_STORE=str(small / "store"))
    assert ran.returncode == 2, ran.stderr
    [line] = ran.stderr.splitlines()
    assert line.startswith(f"Error: {small}/") and "No space left on device" in line
    ballast.unlink()
    ran = tunemake(place, *arguments, TUNEMAKE_STORE=str(small / "store"))
    assert ran.returncode == 0 and "made in" in ran.stderr


@pytest.mark.slow
def test_a_full_disk_in_a_build(small: Path, tmp_path: Path) -> None:
    place, ballast = folder(tmp_path / "it"), fill(small)
    line = [*command("results/small/overlap.json"), "--dry-run"]
    shared = {**environment(), "TUNEMAKE_STORE": str(small / "store")}
    for status in (2, 0):
        ran = subprocess.run(line, cwd=place.root, env=shared, capture_output=True, text=True, timeout=120)
        assert ran.returncode == status and "Traceback" not in ran.stderr, ran.stdout + ran.stderr
        refused = f"Error: {small}/store" in ran.stderr and "No space left on device" in ran.stderr
        assert refused == bool(status)
        ballast.unlink(missing_ok=True)


def test_a_read_only_store(small: Path, tmp_path: Path) -> None:
    store = Store(small / "store")
    done, wanted = planned(store, a=1), planned(store, a=2)
    receipt = run(store, done, Toy())
    assert not mount("-o", "remount,ro", str(small))
    with pytest.raises(
        BuildError, match=rf"^{small}/store/.*: Read-only file system; mount it writable, or set"
    ):
        run(store, wanted, Toy())
    assert store.built("toy", done.address) == receipt
    verify(store.folder("toy", receipt.key))


def _as_nobody(path: Path, answer: Any) -> None:
    os.seteuid(65534)
    try:
        write_atomic(path, b"x")
    except BuildError as error:
        answer.send(str(error))
    os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    receiving, sending = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_as_nobody, args=(tmp_path / "file", sending))
    process.start()
    assert receiving.poll(20)
    assert receiving.recv().startswith(f"{tmp_path / 'file'}: Permission denied; get the permission, or set")
    process.join()
    for end in (receiving, sending):
        end.close()


def test_a_limit_of_file_sizes(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(BuildError, match="File too large; raise the limit"):
            run(Store(tmp_path / "store"), planned(Store(tmp_path / "store")), big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize(
    ("number", "words"), [("EIO", "Input/output error"), ("EDQUOT", "Disk quota exceeded")]
)
def test_a_failing_disk(tmp_path: Path, number: str, words: str) -> None:
    place, address = settled(tmp_path / "it", Store(tmp_path / "it/store"))
    calls = f"inject=fsync:error={number}:when=1+"
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", calls]
    ran = subprocess.run(
        [*trace, sys.executable, "-m", "workflow", "rows", "--address", address],
        cwd=place.root,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 2
    [line] = ran.stderr.splitlines()
    assert line.startswith("Error: store/") and words in line
    assert tunemake(place, "rows", "--address", address).returncode == 0


def test_only_refusals_are_explained() -> None:
    place = Path("/x/y")
    for error in (
        FileNotFoundError(errno.ENOENT, "No such file", "f"),
        OSError(errno.EBADF, "Bad file descriptor"),
        PermissionError(errno.EACCES, "Permission denied"),
        TypeError("no"),
        RuntimeError("os error 28"),
    ):
        assert refusal(error, place) is None
        with pytest.raises(type(error)), one_line(place):
            raise error
    rust = refusal(RuntimeError("I/O error: No space left on device (os error 28)"), place)
    assert rust and rust.startswith("/x/y: No space left on device; ")
    torch = refusal(
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), place
    )
    assert torch and torch.startswith("/x/y: Input/output error")
    named = refusal(PermissionError(errno.EACCES, "Permission denied", "/a/b"), place)
    assert named and named.startswith("/a/b: Permission denied; get the permission")


def test_sizes() -> None:
    assert [size(n) for n in (0, 999, 1000, 999_949, 1_000_000, 2_400_000_000_000, 10**16)] == [
        *("0 bytes", "999 bytes", "1.0 kB", "999.9 kB", "1.0 MB", "2.4 TB", "10000.0 TB")
    ]


def test_a_store_of_a_newer_version(tmp_path: Path) -> None:
    place = folder(tmp_path / "it")
    path = place.path("store/format.json")
    write_atomic(path, b'{"format":%d}\n' % (FORMAT + 1))
    message = rf"newer tunemake \(store format {FORMAT + 1}, this one knows {FORMAT}\); update"
    for use in (
        lambda: place.store.plan("rows", "0" * 32),
        lambda: place.store.built("rows", "0" * 32),
        lambda: clean(place.store, place.path("recipes"), Rules(delete=True)),
        lambda: keep(place.store, []),
    ):
        with pytest.raises(BuildError, match=message):
            use()
    ran = place.snakemake("-n", "results/small/overlap.json")
    assert ran.returncode == 2 and "newer tunemake" in ran.stderr and "Traceback" not in ran.stderr
    assert {entry.name for entry in place.path("store").iterdir()} <= {"format.json", "digests.sqlite"}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"format":"1"}', b"[1]"])
def test_a_damaged_format(tmp_path: Path, body: bytes) -> None:
    store = Store(tmp_path / "store")
    write_atomic(store.root / "format.json", body)
    with pytest.raises(BuildError, match=r"format\.json: damaged"):
        store.open()


def test_recipes_whose_names_differ_in_case_only(tmp_path: Path) -> None:
    place = folder(tmp_path / "it")
    place.graph("small")
    shutil.copy(place.path("recipes/small.yaml"), place.path("recipes/Small.yaml"))
    if len(list(place.path("recipes").glob("*mall.yaml"))) == 2:
        for name in ("small", "Small"):
            with pytest.raises(
                BuildError, match=r"/Small\.yaml and \S*/small\.yaml differ in case only.*rename one"
            ):
                place.graph(name)
        assert place.graph("small-base")
    place.path("recipes/small.yaml").unlink()
    assert place.graph("Small")
