"""A flipped bit or a cut-off file anywhere in a store: noticed, or harmless; never a wrong result."""

from __future__ import annotations

import random
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from wholeness import different, snapshot, soaking
from workspace import Folder
from zygote import Zygote

from workflow.errors import BuildError
from workflow.products import PRODUCTS
from workflow.store.build import verify
from workflow.store.store import Store

TRIALS, PLACES = 100, 5
WORTHLESS = re.compile(r"(\.stamp|\.where\.json|\.broken-\d+(/.*)?)$")
"""What nothing is made from: a stamp counts by being there; sources are looked up anew; broken is aside."""


def harm(path: Path, chance: random.Random) -> None:
    """Flip one bit of a file, or cut off its end."""
    data = bytearray(path.read_bytes())
    place = chance.randrange(len(data))
    if chance.random() < 0.3:
        del data[place:]
    else:
        data[place] ^= 1 << chance.randrange(8)
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def noticed(store: Store, path: Path) -> bool:
    """Whether reading a damaged file of the store, or verifying its folder, says that it is damaged."""
    product, name = path.relative_to(store.root).parts[:2]
    address = name.partition(".")[0]
    try:
        if name == address:
            verify(store.folder(product, name))
        elif name.endswith(".plan.json"):
            store.plan(product, address)
        else:
            store.receipt(product, address)
    except BuildError as error:
        return str(path) in str(error) or str(store.root / product / address) in str(error)
    return False


def sealed(store: Store, path: Path) -> bool:
    """Whether no bit of a file may change unnoticed: products, plans and receipts."""
    name = path.relative_to(store.root).as_posix()
    return bool(re.fullmatch(rf"({'|'.join(PRODUCTS)})/[0-9a-f]{{32}}(\.plan\.json|\.json|/.*)", name))


def lose(made: Folder, root: Path, chance: random.Random) -> None:
    """Take a product away, so that it is made again from what may be damaged."""
    product = chance.choice(sorted(made.graph("small").products.values(), key=lambda node: node.address))
    receipt = made.store.built(product.product, product.address)
    assert receipt
    shutil.rmtree(Store(root / "store").folder(receipt.product, receipt.key))


def trial(zygote: Zygote, made: Folder, root: Path, seed: int) -> list[str]:
    """Damage some places, lose a product, build: what went unnoticed, and what is wrong in the end."""
    chance = random.Random(seed)
    place = Folder(shutil.copytree(made.root, root, symlinks=True) and root)
    files = [path for path in place.path("store").rglob("*") if path.is_file() and not path.is_symlink()]
    files = [path for path in files if path.stat().st_size and path.name != "format.json"]  # it stops all
    wrong = []
    for path in chance.sample(sorted(files), PLACES):
        harm(path, chance)
        if sealed(place.store, path) and not noticed(place.store, path):
            wrong.append(f"{path}: not noticed")
    lose(made, root, chance)
    printed = root.with_name(f"{root.name}.txt")
    if zygote.run("remake", "small", cwd=root, output=printed) or "Traceback" in printed.read_text():
        wrong.append(printed.read_text())
    found = {name: body for name, body in snapshot(root).items() if not WORTHLESS.search(name)}
    wanted = {name: body for name, body in snapshot(made.root).items() if not WORTHLESS.search(name)}
    wrong += [f"{name}: differs" for name in different(found, wanted)]
    shutil.rmtree(root)
    return [f"seed {seed}: {line}" for line in wrong]


@pytest.mark.slow
def test_damage_is_noticed_or_harmless(made: Folder, zygote: Zygote, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda seed: trial(zygote, made, tmp_path / str(seed), seed), range(TRIALS)))
    wrong = [line for lines in found for line in lines]
    assert not wrong, "\n".join(wrong)


@pytest.mark.soak
def test_damage_for_long(made: Folder, zygote: Zygote, tmp_path: Path) -> None:
    for seed in soaking():
        wrong = trial(zygote, made, tmp_path / str(seed), TRIALS + seed)
        assert not wrong, "\n".join(wrong)
