"""The items of one JSON list, cut out one by one: the file is never read whole."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path

from workflow.errors import BuildError
from workflow.formats.opening import opened

STEP = 1 << 20
"""Bytes read at once."""
LONGEST = 64 << 20
"""Characters of the longest item."""
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


class _Window:
    """The text of a file from some place on; more of it is read as it is needed."""

    def __init__(self, path: Path):
        self.path, self.file = path, opened(path)
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.position, self.line = "", 0, 1
        self.bytes, self.ended = 0, False
        self.counted = 0  # how far the lines of `text` have been counted

    def more(self) -> None:
        """Forget what is behind, read at least as much as is left ahead."""
        self.pass_over(self.position)
        self.text, self.position, self.counted = self.text[self.position :], 0, 0
        data = self.file.read(max(STEP, len(self.text)))
        pending = len(self.decoder.getstate()[0])
        try:
            text = self.decoder.decode(data, not data)
        except UnicodeDecodeError as error:
            place = self.bytes - pending + error.start
            raise BuildError(f"{self.path}: not UTF-8 text (byte {place})") from None
        self.text += text if self.bytes else text.removeprefix("\ufeff")
        self.bytes, self.ended = self.bytes + len(data), not data

    def pass_over(self, position: int) -> int:
        """The line at a place, which becomes the place reached."""
        self.line += self.text.count("\n", self.counted, position)
        self.position = self.counted = position
        return self.line

    def peek(self) -> str:
        """The next character that is no white space, "" at the end of the file."""
        while True:
            self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]
            if self.position < len(self.text):
                return self.text[self.position]
            if self.ended:
                return ""
            self.more()

    def value(self) -> str:
        """The JSON value that begins here, passed over."""
        while True:
            try:
                end = _DECODER.raw_decode(self.text, self.position)[1]
                if end < len(self.text) or self.ended:  # else it may be the beginning of a number
                    break
            except json.JSONDecodeError as error:
                if self.ended or len(self.text) - self.position > LONGEST:
                    cut = " (the list is cut off)" if error.pos >= len(self.text) else ""
                    raise BuildError(f"{self.path}:{self.line}: not JSON: {error.msg}{cut}") from None
            except (ValueError, RecursionError) as error:
                raise BuildError(f"{self.path}:{self.line}: not JSON: {error}") from None
            self.more()
        value = self.text[self.position : end]
        self.pass_over(end)
        return value


def items(path: Path) -> Iterator[tuple[int, str, int]]:
    """Line, text and size of each item.

    Raises:
        BuildError: The file is no JSON list, or cut off.
    """
    window = _Window(path)
    with window.file:
        window.peek()
        window.pass_over(window.position + 1)
        more = window.peek() != "]"
        while more:
            line = window.pass_over(window.position)
            value = window.value()
            yield line, value, len(value)
            behind = window.peek()
            more = behind == ","
            if more:
                window.pass_over(window.position + 1)
                window.peek()
            elif behind != "]":
                raise BuildError(f"{path}:{line}: the JSON list is cut off after this item")
        window.pass_over(window.position + 1)
        if window.peek():
            raise BuildError(f"{path}: there is more text behind the end of the JSON list")
