"""One training with transformers' Trainer, PEFT and DeepSpeed, on every rank the same calls."""

from __future__ import annotations

import json
import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, set_seed

from workflow.errors import BuildError
from workflow.recipe.optimisation import Validation
from workflow.recipe.training import Training
from workflow.store.files import write_atomic
from workflow.tokens import TokenRow, read_rendering, read_rows
from workflow.training.arguments import training_arguments
from workflow.training.checkpoints import at_step
from workflow.training.heldout import HeldOut, hold_out
from workflow.training.isolation import check_positions, prove_isolation
from workflow.training.methods import optimizer_for, parameter_counts, tuning_of
from workflow.training.model import base_folder, check_tuning, load_model, save_model
from workflow.training.packing import pack
from workflow.training.spec import Spec
from workflow.training.stream import Collator, Stream
from workflow.training.verdict import losses_in, losses_of, verdict
from workflow.training.watch import RANK, Watch, tell
from workflow.zero import hint, smallest_stage

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
LOGGED = ("step", "loss", "eval_loss", "grad_norm", "learning_rate")


def train(spec: Spec) -> None:
    """Train and leave the result in `spec.out`, written by rank 0.

    Raises:
        BuildError: Target modules match nothing, the engine is not what was asked, packed rows are not
            kept apart, or the loss is NaN.
    """
    training = Training.model_validate(spec.slice["training"])
    stream, held = _rows(spec, training)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # DeepSpeed makes buckets of 800 MB per step
    set_seed(training.seed)
    check_tuning(spec)
    base = base_folder(spec, training.seed)
    _join(bool(spec.slice["deepspeed"]))
    arguments = training_arguments(spec, training, stream.steps)
    model = load_model(spec, base, training.seed)
    set_seed(training.seed)  # adapters are drawn from the same state, however the base was loaded
    pad = read_rendering(Path(spec.shards)).pad_token_id
    trainer = _Trainer(
        tuning_of(spec.slice),
        model=model,
        args=arguments,
        train_dataset=stream,
        data_collator=Collator(pad, packed=training.packing is not None),
    )
    if not trainer.model_accepts_loss_kwargs:
        raise BuildError("transformers does not average this architecture's loss over all tokens of a batch")
    if held:
        trainer.held_out = HeldOut(held, spec.micro_batch, pad, RANK, WORLD)
    trainer.add_callback(_watch(spec, trainer, training))
    torch.manual_seed(training.seed + RANK)  # dropout: no two ranks draw the same mask
    began = time.monotonic(), time.process_time()
    trainer.train(resume_from_checkpoint=spec.resume)
    seconds = time.monotonic() - began[0], time.process_time() - began[1]
    chosen = _choose(spec, trainer, training.validation)
    save_model(spec, trainer)
    if RANK == 0:
        _finish(spec, trainer, _counts(stream, held, training, chosen), seconds)


def _rows(spec: Spec, training: Training) -> tuple[Stream, list[TokenRow]]:
    """What is trained on, in order, and the rows held out."""
    rows, held = hold_out(list(read_rows(Path(spec.shards))), training.validation)
    units = pack(rows, training.packing.length) if training.packing else [(row,) for row in rows]
    size, last = training.batch_size, _last_step(spec, training)
    return Stream(units, training.epochs, training.seed, size, last, training.group_by_length), held


def _watch(spec: Spec, trainer: Trainer, training: Training) -> Watch:
    """The callback, with what is to be done before the first step."""
    watch = Watch(spec, trainer, trainer.train_dataset, training.validation)
    if training.packing:
        check_positions(trainer.model)
        watch.started.append(lambda: _prove_isolation(spec, trainer))
    if spec.deepspeed and torch.cuda.is_available():
        watch.started.append(lambda: _hint_stage(spec, trainer.model))
    return watch


class _Trainer(Trainer):  # type: ignore[misc]
    """The Trainer, reading rows in the order they are given: the stream is the order."""

    held_out: HeldOut
    control: Any

    def __init__(self, tuning: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.tuning = tuning

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The method's own optimizer, where it has one."""
        if getattr(self, "optimizer", None) is None:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args)
            decay = self.args.weight_decay
            self.optimizer: Any = optimizer_for(self.tuning, self.model, kind, settings, decay)
        made: torch.optim.Optimizer = super().create_optimizer(model)
        return made

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The loss on held-out rows, a mean over all their tokens; transformers would average batches."""
        metrics = {"eval_loss": self.held_out.loss(self.model_wrapped, self.args.device)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _last_step(spec: Spec, training: Training) -> int | None:
    """Where the recipe ends, or where early stopping had ended before the job was killed."""
    if spec.resume and training.validation:
        losses = losses_of(Path(spec.resume))
        if verdict(losses, training.validation).stop:
            return losses[-1][0]
    return training.max_steps


def _prove_isolation(spec: Spec, trainer: Trainer) -> None:
    config = trainer.accelerator.unwrap_model(trainer.model).config
    prove_isolation(trainer.model_wrapped, config, trainer.args.device, spec.slice["model"]["dtype"])


def _hint_stage(spec: Spec, model: Any) -> None:
    """Say so when a smaller ZeRO stage would do."""
    counts = parameter_counts(model)
    each = getattr(torch, spec.slice["model"]["dtype"]).itemsize
    memory = torch.cuda.get_device_properties(0).total_memory
    line = hint(
        spec.slice["deepspeed"]["zero_stage"],
        smallest_stage(counts["parameters"], counts["trained_parameters"], WORLD, each, memory),
    )
    if line:
        tell(spec, line)


def _choose(spec: Spec, trainer: Trainer, validation: Validation | None) -> int:
    """Load the best weights if they are asked for; the step that the weights are of."""
    last = int(trainer.state.global_step)
    best = verdict(losses_in(trainer.state.log_history), validation).best if validation else None
    if validation is None or validation.keep == "last" or best is None:
        return last
    tell(spec, f"best validation loss at step {best} of {last}")
    if best != last:
        checkpoint = str(at_step(Path(spec.folder), best))
        if spec.deepspeed:
            from transformers.integrations.deepspeed import deepspeed_load_checkpoint

            strict = not hasattr(trainer.model, "peft_config")
            deepspeed_load_checkpoint(trainer.model_wrapped, checkpoint, load_module_strict=strict)
        else:
            trainer._load_from_checkpoint(checkpoint)
    return best


def _join(deepspeed: bool) -> None:
    """Join the ranks before any model is made: ZeRO-3 shards while loading and must know the world.

    A single rank needs no port for it, so it can meet nobody else's training there.
    """
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if WORLD == 1:
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    if deepspeed:
        engine: Any = import_module("deepspeed")
        # An operator for inference on CPU, which needs g++ and half a minute to build.
        import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]
        engine.init_distributed(backend)


def _counts(stream: Stream, held: list[TokenRow], training: Training, chosen: int) -> dict[str, Any]:
    """What the receipt says of rows and of choices that the recipe made."""
    counts: dict[str, Any] = {"rows": sum(len(unit) for unit in stream.units)}
    if training.packing:
        share = sum(stream.lengths) / (len(stream.units) * training.packing.length)
        counts |= {"sequences": len(stream.units), "packed_share": round(share, 4)}
    if held:
        counts |= {"validation_rows": len(held), "weights_of_step": chosen}
    return counts


def _finish(spec: Spec, trainer: Trainer, counts: dict[str, Any], seconds: tuple[float, float]) -> None:
    """Save the loss log and the facts."""
    stream = trainer.train_dataset
    out, steps = Path(spec.out), int(trainer.state.global_step)
    (out / "loss.jsonl").write_text("".join(_log(trainer.state.log_history, stream)))
    tokens, trained = stream.seen(steps)
    facts = {
        **counts,
        "steps": steps,
        "tokens": tokens,
        "trained_tokens": trained,
        **parameter_counts(trainer.accelerator.unwrap_model(trainer.model)),
    }
    (out / "training.json").write_text(json.dumps(facts, sort_keys=True) + "\n")
    write_atomic(spec.facts, json.dumps(facts).encode())
    _record(spec, trainer, tokens, seconds)


def _log(history: list[dict[str, Any]], stream: Stream) -> list[str]:
    """One JSON line per logged step, with the validation loss where there was one."""
    lines: dict[int, dict[str, Any]] = {}
    for entry in history:
        kept = {name: entry[name] for name in LOGGED if name in entry}
        if kept.keys() & {"loss", "eval_loss"}:
            step = entry["step"]
            passed = {"epoch": round(stream.epochs_after(step), 4), "tokens": stream.tokens_after(step)}
            lines.setdefault(step, passed).update(kept)
    return [json.dumps(line, sort_keys=True) + "\n" for line in lines.values()]


def _record(spec: Spec, trainer: Trainer, tokens: int, seconds: tuple[float, float]) -> None:
    """What differs from run to run; see `workflow.store.build`. Seconds are by the clock and of this CPU."""
    cuda = torch.cuda.is_available()
    resumed = int(spec.resume.rpartition("-")[2]) if spec.resume else 0
    share = 1 - resumed / trainer.state.global_step
    record = {
        "processes": WORLD,
        "micro_batch": spec.micro_batch,
        "gradient_accumulation": spec.accumulation,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "train_seconds": round(seconds[0], 3),
        "train_cpu_seconds": round(seconds[1], 3),
        "resumed_at_step": resumed,
        "tokens_per_second": round(tokens * share / seconds[0], 1),
        **({"peak_gpu_bytes": torch.cuda.max_memory_allocated()} if cuda else {}),
    }
    write_atomic(Path(spec.folder).parent / "run.json", json.dumps(record).encode())
