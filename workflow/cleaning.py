"""`tunemake gc`: what is in the store that nobody needs any more, and deleting it.

Needed is what a root asks for (see `workflow.store.roots`), what a recipe of this folder asks for, what a
running build uses, and whatever these are made from. A receipt goes first and its folder after it, so that
a killed `gc` leaves nothing that looks built.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from workflow.disk import size
from workflow.errors import BuildError
from workflow.graph import Draw
from workflow.products import PRODUCTS
from workflow.recipe.load import everything
from workflow.store.address import ADDRESS
from workflow.store.files import files_in, remove_tree
from workflow.store.leases import Ref, guard, held_refs
from workflow.store.live import Live, live
from workflow.store.locks import free
from workflow.store.roots import Root, roots
from workflow.store.store import Store

DAY = 86_400.0
TOKENS_UNUSED = DAY
PREDICTIONS_UNUSED = 30 * DAY
"""Pieces are a cache: seconds for which they must have lain unused, unless the user says."""

_NAME = re.compile(rf"({ADDRESS})(\..*)?")
_RECORDS = (".json", ".stamp", ".plan.json", ".where.json")
"""Files of an address, in the order in which they are deleted: the receipt first."""


@dataclass(frozen=True)
class Rules:
    """What is to be spared, and whether anything is to be deleted at all."""

    older_than: float | None = None
    keep: tuple[str, ...] = ()
    delete: bool = False


@dataclass
class Item:
    """Something that nobody needs: paths in the order of deletion, and the locks that must be free."""

    what: str
    paths: list[Path] = field(default_factory=list)
    locks: list[Path] = field(default_factory=list)

    @property
    def made(self) -> float:
        """When the newest of it was written (seconds since 1970)."""
        return max((_time(path) for path in self.paths), default=0.0)

    @property
    def unused(self) -> bool:
        """Whether nobody works on it now."""
        with _locked(self) as ours:
            return ours

    @property
    def bytes(self) -> int:
        """What deleting it frees: files that have another name elsewhere free nothing."""
        files = {f for path in self.paths for f in ([path] if path.is_file() else files_in(path))}
        names: defaultdict[tuple[int, int], int] = defaultdict(int)
        sizes: dict[tuple[int, int], tuple[int, int]] = {}
        for path in files:
            stat = path.lstat()
            names[stat.st_dev, stat.st_ino] += 1
            sizes[stat.st_dev, stat.st_ino] = stat.st_size, stat.st_nlink
        return sum(bytes for inode, (bytes, links) in sizes.items() if names[inode] >= links)


def seconds(age: str) -> float:
    """`7d` (also w, h, m) in seconds.

    Raises:
        ValueError: It is something else.
    """
    units = {"w": 7 * DAY, "d": DAY, "h": 3600.0, "m": 60.0}
    if not re.fullmatch(r"\d+[wdhm]", age):
        raise ValueError(age)
    return int(age[:-1]) * units[age[-1]]


def clean(store: Store, recipes: Path, rules: Rules) -> str:
    """Find what nobody needs and, if the rules say so, delete it.

    Returns:
        A report for people: what and how much, and what was kept for which reason.

    Raises:
        BuildError: A root or a needed plan is damaged, so that it is not known what is needed.
    """
    if not store.root.is_dir():
        return f"{store.root}: there is no store here"
    store.open()
    notes: list[str] = []
    left: list[Path] = []
    asked = _of_recipes(store, recipes, notes)
    with guard(store, alone=True):
        asked |= held_refs(store) | _of_roots(store, rules, notes)
        oldest = time.time() - (rules.older_than or 0.0)
        items = [item for item in _dead(store, live(store, asked)) if item.made <= oldest and item.unused]
        sizes = [item.bytes for item in items]
        if rules.delete:
            left = [path for item in items for path in _aside(item, notes)]
    for path in left:
        _remove(path, notes)
    for item in _pieces(store, rules.older_than):  # now, since deleted products shared some
        items.append(item)
        sizes.append(item.bytes)
        if rules.delete:
            for path in item.paths:
                _remove(path, notes)
    return _report(store, list(zip(sizes, items, strict=True)), notes, rules.delete)


def _of_recipes(store: Store, folder: Path, notes: list[str]) -> set[Ref]:
    """What the recipes of this folder ask for; one that is wrong keeps what its root names."""
    draw, found = Draw(store, folder), set[Ref]()
    for name in everything(folder):
        try:
            nodes = draw.recipe(name).nodes.values()
        except BuildError as error:
            notes.append(f"{str(error).splitlines()[0]}; kept: what this recipe published and planned last")
            continue
        found |= {(node.product, node.address) for node in nodes}
    return found


def _of_roots(store: Store, rules: Rules, notes: list[str]) -> set[Ref]:
    found: set[Ref] = set()
    for root in roots(store):
        if not root.gone or root.recipe in rules.keep:
            found |= root.refs
        else:
            _drop(root, rules.delete, notes)
    return found


def _drop(root: Root, delete: bool, notes: list[str]) -> None:
    notes.append(f"{root.folder} is no longer there; `--keep {root.recipe}` would keep what it used")
    if delete:
        root.path.unlink(missing_ok=True)


def _dead(store: Store, needed: Live) -> Iterator[Item]:
    for product in PRODUCTS:
        yield from _dead_products(store, product, needed)
    keys = {key for _, key in needed.keys}
    for path in _entries(store.root / "work"):
        if path.name not in keys:
            yield Item("unfinished work", [path], [store.lock(product, path.name) for product in PRODUCTS])
    for path in _entries(store.root / "again"):
        if path.is_dir():
            yield Item("a second build that was stopped", [path], [path.with_suffix(".lock")])


def _dead_products(store: Store, product: str, needed: Live) -> Iterator[Item]:
    """Folders with the records that lead to them, records without a folder, and remains."""
    folders: dict[str, Item] = {}
    addresses: set[str] = set()
    for path in _entries(store.root / product):
        match = _NAME.fullmatch(path.name)
        if match is None:
            if path.name.endswith(".tmp") and _time(path) < time.time() - DAY:
                yield Item("half a record", [path])
            continue
        name, kind = match[1], match[2] or ""
        if kind in _RECORDS and (product, name) not in needed.refs:
            addresses.add(name)
        elif kind in ("", ".run.json") and (product, name) not in needed.keys:
            item = folders.setdefault(name, Item(f"{product} {name[:8]}", locks=[store.lock(product, name)]))
            item.paths.append(path)
        elif kind == ".tmp":
            yield Item(f"half a {product} {name[:8]}", [path], [store.lock(product, name)])
        elif kind.startswith((".broken-", ".dead-")):
            yield Item(f"{kind.partition('-')[0][1:]} {product} {name[:8]}", [path])
    records = Item(f"{product}: records")
    for address in sorted(addresses):
        paths = [store.file(product, address, kind) for kind in _RECORDS]
        item = folders.get(_named(paths[0]) or "", records)
        item.paths[:0] = [path for path in paths if path.exists()]
    yield from (item for item in (*folders.values(), records) if item.paths)


def _named(receipt: Path) -> str | None:
    """The key that a receipt names, damaged or not."""
    try:
        found = re.search(rb'"key":"([0-9a-f]{32})"', receipt.read_bytes())
    except FileNotFoundError:
        return None
    return found[1].decode() if found else None


def _pieces(store: Store, older_than: float | None) -> Iterator[Item]:
    """Pieces that no product shares and that lay unused: a cache, so nothing depends on them."""
    tokens = Item("pieces of token shards, in no product")
    before = time.time() - max(older_than or 0.0, TOKENS_UNUSED)
    for path in files_in(store.pieces / "tokens"):
        if path.lstat().st_nlink == 1 and _time(path) < before:
            tokens.paths.append(path)
    origins = Item("where rows came from that are gone")
    for path in files_in(store.pieces / "rows"):
        key = path.name.lstrip(".").partition(".")[0]
        if not store.has("rows", key) and _time(path) < before:
            origins.paths.append(path)
    predictions = Item("pieces of predictions, unused")
    limit = PREDICTIONS_UNUSED if older_than is None else older_than
    for path in _entries(store.pieces / "predictions"):
        newest = max([_time(path), *map(_time, files_in(path) if path.is_dir() else [])])
        if newest < time.time() - limit:
            predictions.paths.append(path)
    yield from (item for item in (tokens, origins, predictions) if item.paths)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _time(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()  # it is being worked on


def _aside(item: Item, notes: list[str]) -> list[Path]:
    """Take an item out of use, unless somebody works on it by now; folders that are left to be removed."""
    left: list[Path] = []
    with _locked(item) as ours:
        try:
            for path in item.paths if ours else []:
                if path.is_dir():
                    aside = f"{path.name.partition('.')[0]}.dead-{secrets.token_hex(8)}"
                    left.append(path.rename(path.with_name(aside)))
                else:
                    path.unlink(missing_ok=True)
            for path in item.locks if ours else []:
                path.unlink(missing_ok=True)
        except PermissionError as error:
            notes.append(f"{error.filename}: belongs to somebody else, left there")
    return left


@contextmanager
def _locked(item: Item) -> Iterator[bool]:
    """Hold the locks of an item if nobody else does; whether they are held."""
    with ExitStack() as stack:
        yield all(stack.enter_context(free(path)) for path in item.locks if path.exists())


def _remove(path: Path, notes: list[str]) -> None:
    try:
        remove_tree(path)
    except PermissionError as error:
        notes.append(f"{error.filename}: belongs to somebody else, left there")


def _report(store: Store, found: list[tuple[int, Item]], notes: list[str], deleted: bool) -> str:
    lines = [f"note: {note}" for note in notes]
    for count, item in sorted(found, key=lambda pair: (-pair[0], pair[1].what)):
        made = "" if deleted else time.strftime(", written %Y-%m-%d", time.localtime(item.made))
        lines.append(f"{size(count):>10}  {item.what}{made}")
    total = f"{size(sum(count for count, _ in found))} that nobody needs"
    if not found:
        return "\n".join([*lines, f"{store.root}: nothing to clean up"])
    if deleted:
        return "\n".join([*lines, f"{store.root}: deleted {total}"])
    return "\n".join([*lines, f"{store.root}: {total}; `tunemake gc --delete` deletes it"])
