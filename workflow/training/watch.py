"""What happens between two steps: the engine checked, loss on held-out rows, checkpoints, progress."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed
from transformers import Trainer, TrainerCallback

from workflow.errors import BuildError
from workflow.progress import EVERY, duration
from workflow.recipe.optimisation import Validation
from workflow.training.checkpoints import at_step, best_of, rotate, seal_checkpoint
from workflow.training.spec import Spec
from workflow.training.stream import Stream
from workflow.training.verdict import losses_in, verdict

RANK = int(os.environ.get("RANK", "0"))
SAVE_STEPS = 100
"""Steps between two checkpoints where the recipe does not say."""


class Watch(TrainerCallback):  # type: ignore[misc]
    """Decides when to save, to evaluate and to stop; checks, seals and tells."""

    def __init__(self, spec: Spec, trainer: Trainer, stream: Stream, validation: Validation | None):
        self.spec, self.trainer, self.stream, self.validation = spec, trainer, stream, validation
        self.shown = self.began = time.monotonic()
        self.folder = Path(spec.folder)
        self.started: list[Callable[[], None]] = []
        """What is to be done when the engine stands, before the first step."""
        self.first: int | None = None
        self.loss = ""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the first step: the engine must have the stage that was asked for."""
        if self.first is not None:
            return
        self.first, self.began = state.global_step, time.monotonic()
        if self.spec.resume:
            _take_up_loss(self.trainer, Path(self.spec.resume))
        if self.spec.slice["deepspeed"]:
            asked = self.spec.slice["deepspeed"]["zero_stage"]
            real = self.trainer.model_wrapped.zero_optimization_stage()
            print(f"deepspeed engine: zero stage {real}")
            if real != asked:
                raise BuildError(f"DeepSpeed runs ZeRO stage {real}, the recipe asks for {asked}")
        for action in self.started:
            action()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What is due at this step; the last one is logged, evaluated and saved."""
        step, last = state.global_step, state.global_step == self.stream.steps
        control.should_log |= last
        control.should_save |= last or self._due(step, self.spec.save_steps, self.spec.save_epochs)
        if self.validation:
            every = self.validation.every_steps, self.validation.every_epochs
            control.should_evaluate |= last or self._due(step, *every)
            control.should_log |= control.should_evaluate
        self._show(step)

    def _due(self, step: int, steps: int | None, epochs: int | None) -> bool:
        if epochs is not None:
            return self.stream.ends_epochs(step, epochs)
        return step % (steps or SAVE_STEPS) == 0

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The best weights so far are saved, those of the last step too; early stopping ends here."""
        assert self.validation
        found = verdict(losses_in(state.log_history), self.validation)
        control.should_save |= self.validation.keep == "best" and found.best == state.global_step
        if found.stop:
            control.should_training_stop = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """When all ranks have written: the manifest, and only then older checkpoints go."""
        checkpoint = at_step(self.folder, state.global_step)
        _keep_loss(self.trainer, checkpoint)
        _meet()
        if RANK == 0:
            seal_checkpoint(checkpoint)
            rotate(self.folder, self.spec.keep_checkpoints, best_of(self.validation, self.folder))
        _meet()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """A loss that is not a number ends the training."""
        for name in {"loss", "eval_loss"} & (logs or {}).keys():
            if not math.isfinite(logs[name]):
                where = f"{logs[name]} at step {state.global_step}"
                raise BuildError(f"the {name.replace('_', ' ')} is {where}; lower the learning rate")
        if logs and "loss" in logs:
            self.loss = f", loss {logs['loss']:.3f}"

    def _show(self, step: int) -> None:
        """A line now and then, with an estimate of what is left."""
        now = time.monotonic()
        if RANK or (now - self.shown < EVERY and step < self.stream.steps):
            return
        self.shown = now
        left = duration((now - self.began) / (step - (self.first or 0)) * (self.stream.steps - step))
        tell(self.spec, f"{step}/{self.stream.steps} steps{self.loss}, about {left} left")


def tell(spec: Spec, line: str) -> None:
    """Show a line in the build, from the first rank."""
    if RANK == 0:
        with spec.progress.open("a") as file:
            file.write(f"adapter: {line}\n")


def _meet() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _keep_loss(trainer: Trainer, checkpoint: Path) -> None:
    """Keep this rank's loss since the last line of the log, which transformers forgets."""
    kept = {"loss": trainer._tr_loss.item(), "logged": trainer._globalstep_last_logged}
    (checkpoint / f"loss-{RANK}.json").write_text(json.dumps(kept))


def _take_up_loss(trainer: Trainer, checkpoint: Path) -> None:
    """Go on with it, so that a resumed log is the uninterrupted one."""
    kept = json.loads((checkpoint / f"loss-{RANK}.json").read_text())
    trainer._tr_loss.fill_(kept["loss"])
    trainer._globalstep_last_logged = kept["logged"]
