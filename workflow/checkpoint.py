"""Model folders and their safetensors files, read and written without holding more than one tensor.

The format is `safetensors <https://github.com/huggingface/safetensors#format>`_: eight bytes (the
header's length N, little endian), N bytes of JSON, then the tensors' bytes without holes. This module
moves bytes and knows neither torch nor what a tensor means.
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workflow.errors import BuildError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000  # bytes; the limit the format's own reader sets
CHUNK = 8 << 20  # bytes copied at a time
ITEM_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}

Edit = Callable[[bytearray], None]


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies: ``start`` counts bytes from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One safetensors file: its raw header (length field included) and its tensors in file order."""

    path: Path
    header: bytes
    tensors: dict[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, header not counted."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object whose keys must differ, as the format demands."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _read_raw_header(path: Path, size: int) -> bytes:
    """Read the length field and the JSON text behind it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8 or length > LONGEST_HEADER:
            raise ValueError(f"the header claims {length} bytes, the file has {size}")
        file.seek(0)
        return file.read(8 + length)


def _entry(name: str, value: Any, data_start: int) -> Tensor:
    """Check one tensor's description: types, and that its bytes are as many as its shape needs."""
    dtype, shape, (begin, end) = str(value["dtype"]), tuple(value["shape"]), value["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"{name} has a shape or an offset that is no count")
    if dtype in ITEM_BITS and (end - begin) * 8 != math.prod(shape) * ITEM_BITS[dtype]:
        raise ValueError(f"{name} ({dtype} {list(shape)}) has {end - begin} bytes")
    return Tensor(name, dtype, shape, data_start + begin, end - begin)


def _parse(header: bytes, size: int) -> dict[str, Tensor]:
    """Turn a raw header into tensors in file order; they must fill the file without hole or overlap."""
    table = json.loads(header[8:].decode(), object_pairs_hook=_unique_keys)
    table.pop("__metadata__", None)
    entries = [_entry(name, value, len(header)) for name, value in table.items()]
    entries.sort(key=lambda entry: (entry.start, entry.nbytes, entry.name))
    position = len(header)
    for entry in entries:
        if entry.start != position or entry.nbytes < 0:
            raise ValueError(f"{entry.name} overlaps its neighbour or leaves a hole")
        position += entry.nbytes
    if position != size:
        raise ValueError(f"its tensors end at byte {position}, the file at {size}")
    return {entry.name: entry for entry in entries}


def read_weight_file(path: Path) -> WeightFile:
    """Read a safetensors file's header.

    Raises:
        BuildError: the file is missing, truncated, or its header contradicts itself or the file's size.
    """
    try:
        size = path.stat().st_size
        header = _read_raw_header(path, size)
        return WeightFile(path, header, _parse(header, size))
    except OSError as error:
        raise BuildError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise BuildError(f"{path}: not a safetensors file: {reason}; copy it again") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a model folder.

    Raises:
        BuildError: the file is missing, is not JSON, or holds no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BuildError(f"{path}: expected a JSON object")
    return value


def _shards(folder: Path) -> list[WeightFile]:
    """Read the headers of the files an index names, and check each entry of the index against them."""
    index = folder / INDEX_FILE
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BuildError(f"{index}: has no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise BuildError(f"{index}: names {name!r}, which is no file beside it; complete the download")
    files = [read_weight_file(folder / name) for name in names]
    held = {file.path.name: file.tensors for file in files}
    lost = [tensor for tensor, name in weight_map.items() if tensor not in held[str(name)]]
    if lost:
        raise BuildError(f"{index}: {naming(lost)} not in the named file; complete the download")
    return files


def weight_files(folder: Path) -> list[WeightFile]:
    """Find a model's weights: `model.safetensors`, or else the files of its index, sorted by name.

    Raises:
        BuildError: there are only pickled weights or none, the index names what is not there, or a
            tensor is stored twice.
    """
    if (folder / SINGLE_FILE).exists():
        return [read_weight_file(folder / SINGLE_FILE)]
    if not (folder / INDEX_FILE).exists():
        pickles = sorted(path.name for path in folder.glob("*.bin")) if folder.is_dir() else []
        found = f"only {pickles[0]}, a pickle, which can run code" if pickles else "no weights"
        raise BuildError(f"{folder}: has {found}; save the model as safetensors")
    files = _shards(folder)
    seen: set[str] = set()
    for file in files:
        if twice := seen & file.tensors.keys():
            raise BuildError(f"{file.path}: {naming(sorted(twice))} also in another file of the model")
        seen |= file.tensors.keys()
    return files


def same_weights(one: Path, other: Path) -> bool:
    """Whether two models have the same tensors, byte by byte; the first difference ends the reading."""
    first, second = (
        {t.name: (f, t) for f in weight_files(m) for t in f.tensors.values()} for m in (one, other)
    )
    same = (_bytes_of(*first[name]) == _bytes_of(*second[name]) for name in first)
    return first.keys() == second.keys() and all(same)


def _bytes_of(file: WeightFile, tensor: Tensor) -> tuple[str, bytearray]:
    with file.path.open("rb", buffering=0) as reader:
        return tensor.dtype, read_tensor(reader, tensor)


def naming(names: list[str]) -> str:
    """Name the first three of many, and how many more there are, for an error message."""
    more = f" and {len(names) - 3} more are" if len(names) > 3 else " are" if len(names) > 1 else " is"
    return ", ".join(names[:3]) + more


def read_tensor(file: BinaryIO, tensor: Tensor) -> bytearray:
    """Read one tensor's bytes into memory of its own, ``tensor.nbytes`` long.

    Not `safetensors.safe_open`: that maps the whole file, and every page touched counts as resident
    until the file is closed (20 tensors of 32 MB read one by one: 644 MB; so: 67 MB).
    """
    return _read(file, tensor.start, tensor.nbytes)


def _read(file: BinaryIO, start: int, length: int) -> bytearray:
    """Read bytes ``start`` to ``start + length``; a single `readinto` stops at 2 GiB."""
    data = bytearray(length)
    view = memoryview(data)
    file.seek(start)
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]  # BinaryIO does not declare it
        if not count:
            raise BuildError(f"{file.name}: ended while it was read; did another program rewrite it?")
        view = view[count:]
    return data


def rewrite(source: WeightFile, target: Path, edits: Mapping[str, Edit], done: Callable[[int], None]) -> None:
    """Stream ``source`` to ``target``: the same header, then each tensor in file order.

    A tensor named in ``edits`` is read whole, changed in place by its edit (its length cannot change)
    and written; the others pass through in pieces. ``done`` is called with each count of bytes handed to the
    writing thread, which writes one piece while the next is read and edited.
    """
    with (
        source.path.open("rb", buffering=0) as reader,
        target.open("xb", buffering=0) as writer,
        ThreadPoolExecutor(1) as thread,
    ):
        written = thread.submit(_write, writer, source.header)
        for tensor in source.tensors.values():
            for piece in _edited(reader, tensor, edits.get(tensor.name)):
                written.result()
                written = thread.submit(_write, writer, piece)
                done(len(piece))
        written.result()


def _edited(reader: BinaryIO, tensor: Tensor, edit: Edit | None) -> Iterator[bytes | bytearray]:
    """Yield a tensor's bytes: whole after its edit, or in pieces when there is none."""
    if edit is not None:
        data = read_tensor(reader, tensor)
        edit(data)
        yield data
        return
    for offset in range(0, tensor.nbytes, CHUNK):
        yield _read(reader, tensor.start + offset, min(CHUNK, tensor.nbytes - offset))


def _write(writer: BinaryIO, data: bytes | bytearray) -> None:
    """Write all of ``data``; an unbuffered write stops at 2 GiB."""
    view = memoryview(data)
    while view:
        view = view[writer.write(view) :]


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` a hard link of the file behind ``source``; a copy where that is unsafe or impossible.

    Linked are read-only files alone, as the store's are: somebody may still write into any other.
    Another file system, a file of another user (`fs.protected_hardlinks`): both fall back to a copy.
    """
    try:
        if source.stat().st_mode & 0o222:
            raise PermissionError(source)
        os.link(source.resolve(), target)
    except OSError:
        if target.exists():
            raise
        shutil.copyfile(source, target)


RECORDS = ("manifest.json", "training.json")
"""What tunemake itself wrote beside a model."""


def place_companions(model: Path, out: Path, place: Callable[[Path, Path], object]) -> None:
    """Put beside the weights in ``out``, by ``place`` (a copy or a link), what travels with them."""
    for path in companions(model):
        (out / path).parent.mkdir(exist_ok=True)
        place(model / path, out / path)


def companions(folder: Path) -> list[Path]:
    """List, relative to ``folder`` and sorted, what travels with a model's weights.

    That is configuration, tokenizer and chat templates; neither code (`*.py`) nor pickles, nor what
    belongs to an adapter: transformers would load an `adapter_config.json` beside the weights.
    """
    places = [folder, folder / "additional_chat_templates"]
    files = [path for place in places if place.is_dir() for path in place.iterdir() if path.is_file()]
    index = () if (folder / SINGLE_FILE).exists() else (INDEX_FILE,)  # as transformers: one file wins
    wanted = (".json", ".jinja", ".txt", ".model", ".tiktoken")
    return sorted(
        path.relative_to(folder)
        for path in files
        if path.suffix in wanted
        and (path.name in index or not path.name.endswith(".index.json"))
        and not path.name.startswith(("adapter_", "trainer_state"))
        and path.name not in RECORDS
    )
