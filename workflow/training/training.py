"""One training with transformers' Trainer, PEFT and DeepSpeed, on every rank the same calls."""

from __future__ import annotations

import json
import math
import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from workflow.errors import BuildError
from workflow.progress import EVERY, duration
from workflow.recipe.training import DeepSpeed, Training
from workflow.store.files import write_atomic
from workflow.tokens import TokenRow, read_rendering, read_rows
from workflow.training.checkpoints import rotate, seal_checkpoint
from workflow.training.methods import optimizer_for, parameter_counts, tuning_of
from workflow.training.model import base_folder, check_tuning, load_model, save_model
from workflow.training.spec import Spec, optimizer_steps
from workflow.training.stream import Collator, Stream
from workflow.zero import deepspeed_config

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))
LOGGED = ("step", "loss", "grad_norm", "learning_rate")


def train(spec: Spec) -> None:
    """Train and leave the result in `spec.out`, written by rank 0.

    Raises:
        BuildError: Target modules match nothing, the engine is not what was asked, or the loss is NaN.
    """
    training = Training.model_validate(spec.slice["training"])
    rows = list(read_rows(Path(spec.shards)))
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # DeepSpeed makes buckets of 800 MB per step
    set_seed(training.seed)
    steps = optimizer_steps(len(rows), training.epochs, training.batch_size)
    check_tuning(spec)
    base = base_folder(spec, training.seed)
    _join(bool(spec.slice["deepspeed"]))
    arguments = _arguments(spec, training, steps)
    model = load_model(spec, base, training.seed)
    set_seed(training.seed)  # adapters are drawn from the same state, however the base was loaded
    stream = Stream(rows, training.epochs, training.seed, training.batch_size)
    trainer = _Trainer(
        tuning_of(spec.slice),
        model=model,
        args=arguments,
        train_dataset=stream,
        data_collator=Collator(read_rendering(Path(spec.shards)).pad_token_id),
    )
    if not trainer.model_accepts_loss_kwargs:
        raise BuildError("transformers does not average this architecture's loss over all tokens of a batch")
    trainer.add_callback(_Watch(spec, trainer, steps))
    torch.manual_seed(training.seed + RANK)  # dropout: no two ranks draw the same mask
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=spec.resume)
    _finish(spec, trainer, training, rows, time.monotonic() - began)


class _Trainer(Trainer):  # type: ignore[misc]
    """The Trainer, reading rows in the order they are given: the stream is the order."""

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


def _arguments(spec: Spec, training: Training, steps: int) -> TrainingArguments:
    dtype = spec.slice["model"]["dtype"]
    deepspeed = None
    if spec.slice["deepspeed"]:
        stage = DeepSpeed.model_validate(spec.slice["deepspeed"]).zero_stage
        deepspeed = deepspeed_config(
            stage, spec.micro_batch, spec.accumulation, WORLD, dtype, training.max_grad_norm
        )
    return TrainingArguments(
        output_dir=spec.folder,
        max_steps=steps,
        per_device_train_batch_size=spec.micro_batch,
        gradient_accumulation_steps=spec.accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler,
        warmup_steps=math.ceil(training.warmup_ratio * steps),
        weight_decay=training.weight_decay,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        max_grad_norm=training.max_grad_norm,
        optim="adamw_torch",
        bf16=dtype == "bfloat16",
        fp16=dtype == "float16",
        gradient_checkpointing=spec.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if spec.gradient_checkpointing else None,
        logging_steps=training.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would show a mean of earlier losses instead of NaN
        save_strategy="steps",
        save_steps=spec.save_steps,
        seed=training.seed,
        use_cpu=not torch.cuda.is_available(),
        ddp_backend=None if torch.cuda.is_available() else "gloo",
        ddp_find_unused_parameters=False,
        deepspeed=deepspeed,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )


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


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Checks the engine, seals checkpoints, shows progress."""

    def __init__(self, spec: Spec, trainer: Trainer, steps: int):
        self.spec, self.trainer, self.steps = spec, trainer, steps
        self.shown = self.began = time.monotonic()
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

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """When all ranks have written: the manifest, and only then older checkpoints go."""
        _keep_loss(self.trainer, Path(self.spec.folder) / f"checkpoint-{state.global_step}")
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if RANK == 0:
            seal_checkpoint(Path(self.spec.folder) / f"checkpoint-{state.global_step}")
            rotate(Path(self.spec.folder), self.spec.keep_checkpoints)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """A loss that is not a number ends the training."""
        if logs and "loss" in logs:
            if not math.isfinite(logs["loss"]):
                where = f"{logs['loss']} at step {state.global_step}"
                raise BuildError(f"the loss is {where}; lower the learning rate")
            self.loss = f", loss {logs['loss']:.3f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A line now and then, with an estimate of what is left; the last step is always logged."""
        control.should_log |= state.global_step == self.steps
        now = time.monotonic()
        if RANK or (now - self.shown < EVERY and state.global_step < self.steps):
            return
        self.shown = now
        done = state.global_step - (self.first or 0)
        left = duration((now - self.began) / done * (self.steps - state.global_step))
        with self.spec.progress.open("a") as file:
            file.write(f"adapter: {state.global_step}/{self.steps} steps{self.loss}, about {left} left\n")


def _keep_loss(trainer: Trainer, checkpoint: Path) -> None:
    """Keep this rank's loss since the last line of the log, which transformers forgets."""
    kept = {"loss": trainer._tr_loss.item(), "logged": trainer._globalstep_last_logged}
    (checkpoint / f"loss-{RANK}.json").write_text(json.dumps(kept))


def _take_up_loss(trainer: Trainer, checkpoint: Path) -> None:
    """Go on with it, so that a resumed log is the uninterrupted one."""
    kept = json.loads((checkpoint / f"loss-{RANK}.json").read_text())
    trainer._tr_loss.fill_(kept["loss"])
    trainer._globalstep_last_logged = kept["logged"]


def _finish(spec: Spec, trainer: Trainer, training: Training, rows: list[TokenRow], seconds: float) -> None:
    """Save the weights, the loss log and the facts."""
    out = Path(spec.out)
    save_model(spec, trainer)
    if RANK:
        return
    history = [line for line in trainer.state.log_history if "loss" in line]
    with (out / "loss.jsonl").open("w") as file:
        for line in history:
            kept = {name: line[name] for name in LOGGED if name in line}
            passed = min(line["step"] * training.batch_size, training.epochs * len(rows))
            kept["epoch"] = round(passed / len(rows), 4)
            file.write(json.dumps(kept, sort_keys=True) + "\n")
    model = trainer.accelerator.unwrap_model(trainer.model)
    facts = {
        "steps": trainer.state.global_step,
        "rows": len(rows),
        "tokens": training.epochs * sum(len(row.input_ids) for row in rows),
        "trained_tokens": training.epochs * sum(int(row.trained.sum()) for row in rows),
        **parameter_counts(model),
    }
    (out / "training.json").write_text(json.dumps(facts, sort_keys=True) + "\n")
    write_atomic(spec.facts, json.dumps(facts).encode())
    _record(spec, trainer, facts["tokens"], seconds)


def _record(spec: Spec, trainer: Trainer, tokens: int, seconds: float) -> None:
    """What differs from run to run; see `workflow.store.build`."""
    cuda = torch.cuda.is_available()
    resumed = int(spec.resume.rpartition("-")[2]) if spec.resume else 0
    share = 1 - resumed / trainer.state.global_step
    record = {
        "processes": WORLD,
        "micro_batch": spec.micro_batch,
        "gradient_accumulation": spec.accumulation,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "train_seconds": round(seconds, 3),
        "resumed_at_step": resumed,
        "tokens_per_second": round(tokens * share / seconds, 1),
        **({"peak_gpu_bytes": torch.cuda.max_memory_allocated()} if cuda else {}),
    }
    write_atomic(Path(spec.folder).parent / "run.json", json.dumps(record).encode())
