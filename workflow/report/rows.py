"""A few training rows as tokens, and what the data gate counted, for the report."""

from __future__ import annotations

from dataclasses import dataclass

from workflow.encoding import backend_of
from workflow.gate import of_overlap, of_rows, share
from workflow.report.inputs import Inputs
from workflow.tokens_shown import Piece, first_rows, pieces, visible

ROWS, PIECES = 3, 900


@dataclass(frozen=True)
class Shown:
    """A row: its beginning and its end in pieces, and how many are between them."""

    id: str
    tokens: int
    trained: str
    begin: list[Piece]
    left_out: int
    end: list[Piece]


def training_rows(inputs: Inputs) -> list[Shown]:
    """Rows whose ids have the smallest digests; none where nothing is trained."""
    if not {"shards_train", "tokenizer"} <= inputs.folders.keys():
        return []
    backend, found = backend_of(inputs.folders["tokenizer"]), []
    for row in first_rows(inputs.folders["shards_train"], ROWS):
        parts = [Piece(visible(piece.text), piece.trained) for piece in pieces(row, backend)]
        cut = len(parts) - PIECES if len(parts) > PIECES else 0
        kept = (PIECES // 3) if cut else len(parts)
        trained, tokens = int(row.trained.sum()), len(row.input_ids)
        end = parts[kept + cut :]
        found.append(Shown(row.id, tokens, share(trained, tokens), parts[:kept], cut, end))
    return found


def sentences(inputs: Inputs) -> dict[str, list[str]]:
    """Of which data -> what was counted of it, in sentences."""
    said = {
        "Training rows": list(of_rows(inputs.counts("shards_train"), True))
        if "shards_train" in inputs
        else [],
        "Test rows": list(of_rows(inputs.counts("shards_test"), False)) if "shards_test" in inputs else [],
        "Both": list(of_overlap(inputs.counts("overlap"))) if "overlap" in inputs else [],
    }
    return {name: lines for name, lines in said.items() if lines}
