"""Work spread over processes, its results in order, none of them outliving the job."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from workflow.death import die_with_parent
from workflow.errors import BuildError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4
"""Items given out per process before the first result is taken."""

_work: Callable[[Any], Any] | None = None


def in_order(work: Callable[[Item], Result], items: Iterable[Item], processes: int) -> Iterator[Result]:
    """`map(work, items)` by forked processes; with one, by this process itself.

    `work` and what it holds is inherited; items and results are sent, so they should be small.

    Raises:
        BuildError: A process was killed. What `work` raises, for the first item that it fails on.
    """
    if processes < 2:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(processes, get_context("fork"), _start, (work,)) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(_call, item))
                while len(waiting) > AHEAD * processes or (waiting and waiting[0].done()):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise BuildError(
                "a process of this job was killed, most likely for memory; build again"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start(work: Callable[[Any], Any]) -> None:
    global _work
    die_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process per core already
    _work = work


def _call(item: Any) -> Any:
    assert _work
    return _work(item)
