"""The process that trains: a run folder in, events out. Started by train/launch.py (and, for many processes, by
torchrun).

    python -m rankwise.worker RUN [--resume]

Each event goes to events.jsonl and, as the same line, to standard output; everything else goes to standard error.
"""

import argparse
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.utils import set_seed
from safetensors.torch import save_file

from rankwise.errors import RankwiseError, TrainingError
from rankwise.methods import METHODS, TUNERS
from rankwise.model.attach import allow_packing, attach, total_params, trainable_params
from rankwise.model.likelihood import final_logits, row_losses
from rankwise.model.load import load_base, quiet_transformers
from rankwise.model.trained import restore_weights
from rankwise.records import Event, Failed, Finished, Note, Plan, Started, TrainConfig, Validation
from rankwise.report.card import model_card
from rankwise.store import Run, disk_was_full, now, publish_folder, write_record
from rankwise.text.dataset import Dataset, load_dataset
from rankwise.text.files import copy_text_files
from rankwise.text.masks import Encoded
from rankwise.text.template import ChatText
from rankwise.train.checkpoints import Checkpoints
from rankwise.train.loop import Loop
from rankwise.train.mirror import Mirror
from rankwise.train.mixing import mix
from rankwise.train.trackers import reporters
from rankwise.watch.evidence import summarise


def work(run: Run, *, resume: bool, stop_signal: threading.Event, began: float | None = None) -> Iterator[Event]:
    """Carry the plan of `run` out and yield its events; they are on disk before they are yielded.

    Args:
        began: seconds since the epoch, from when loading is counted; None: from now.

    Raises:
        RankwiseError: in use, not resumable, data or training faults. Already written as a `failed` event.
    """
    with run.lock():
        run.stop_path.unlink(missing_ok=True)
        run.mend_events()
        try:
            yield from _told(run, _road(run, resume, stop_signal, began or time.time()))
        except Exception as error:
            said = error if isinstance(error, RankwiseError) else disk_was_full(error, run.folder)
            if said is None:
                raise
            with suppress(OSError):  # a full disk may have no room for that line either
                run.append(_failed(said))
            raise said from error


def _told(run: Run, events: Iterator[Event]) -> Iterator[Event]:
    """Each event on the disk, then with the trackers; what one has failed at is a note before the next event, since
    nothing may follow the last one, by which a run is known to have ended.
    """
    plan = run.plan()
    assert plan.verdict.config is not None
    with reporters(plan.job.train.trackers, run.folder, plan.verdict.config) as told:
        for event in events:
            for sentence in told.failures():
                note = Note(time=now(), text=sentence)
                run.append(note)
                yield note
            run.append(event)
            told.tell(event)
            yield event


def _road(run: Run, resume: bool, stop_signal: threading.Event, began: float) -> Iterator[Event]:
    plan = run.plan()
    config = plan.verdict.config
    assert config is not None, "a plan without a configuration is refused before the worker starts"
    chat = ChatText.from_folder(plan.facts.model.path)
    seed = config.seed
    data = load_dataset(plan.job, chat, max_length=config.max_length, on_long=config.on_long, seed=seed)
    yield from _notes(data, config)
    cpu = plan.facts.device.kind == "cpu"
    model = _model(plan, config, cpu)
    mirror = Mirror(config.save_url, run, plan.content_hash()) if config.save_url else None
    if mirror:
        mirror.begin(resume=resume)
    checkpoints = Checkpoints(run, config, plan_checkpoint_bytes(plan), mirror)
    start, skipped = checkpoints.newest_sound() if resume else (None, [])
    for sentence in skipped:
        yield Note(time=now(), text=sentence)
    loop = Loop(
        model,
        mix(data.train, data.replay, config.replay_share, seed),
        config,
        pad_token_id=chat.pad_token_id if chat.pad_token_id is not None else 0,
        checkpoints=checkpoints,
        validate=lambda step: _validate(model, data, config, step),
        try_validation=lambda: row_losses(model, _longest(data.validation), autocast=config.autocast),
        stop=lambda: _reason_to_stop(run, stop_signal),
        plan_hash=plan.content_hash(),
        params=(trainable_params(model), total_params(model)),
        cpu=cpu,
    )
    load_seconds = time.time() - began
    for event in loop.events(start):
        if isinstance(event, Started):
            event = event.model_copy(update={"load_seconds": load_seconds})
        if isinstance(event, Finished):
            yield from _keep_best(loop, checkpoints, event.step)
            _publish(run, plan, model, data)
        yield event
    write_record(run.evidence_path, summarise(plan, run.events()))


def plan_checkpoint_bytes(plan: Plan) -> int:
    estimate = plan.chosen()
    return estimate.storage.checkpoint_bytes if estimate else 0


def _model(plan: Plan, config: TrainConfig, cpu: bool) -> Any:
    set_seed(config.seed)  # the adapter's initial values and dropout follow from it
    base = load_base(
        plan.facts.model.path,
        dtype=config.dtype,
        four_bit=TUNERS[config.method].base == "nf4",
        device="cpu" if cpu else "cuda",
    )
    return attach(base, config)


def _notes(data: Dataset, config: TrainConfig) -> Iterator[Note]:
    lengths = data.lengths
    if lengths.long_rows:
        yield Note(
            time=now(),
            text=f"{lengths.long_rows} of {lengths.rows} training rows are longer than {config.max_length} tokens "
            f"(longest {data.longest}); on_long: {config.on_long}: {lengths.dropped_rows} rows dropped, "
            f"{lengths.lost_supervised_tokens} answer tokens lost",
        )


def _validate(model: Any, data: Dataset, config: TrainConfig, step: int) -> Validation:
    began = time.monotonic()
    losses = row_losses(model, data.validation, autocast=config.autocast)
    tokens = sum(count for _, count in losses)
    loss = sum(loss for loss, _ in losses) / tokens
    if not math.isfinite(loss):
        raise TrainingError(
            f"after step {step} the held-out loss is {loss}",
            expected="a finite number",
            fix="lower train.learning_rate; the last checkpoint is as it was",
        )
    return Validation(
        time=now(),
        step=step,
        loss=loss,
        supervised_tokens=tokens,
        seconds=time.monotonic() - began,
    )


def _longest(rows: list[Encoded]) -> list[Encoded]:
    return [max(rows, key=lambda row: len(row.ids))]


def _reason_to_stop(run: Run, stop_signal: threading.Event) -> str | None:
    if stop_signal.is_set():
        return "asked to stop (Ctrl-C or SIGTERM)"
    return "a file named `stop` was put into the run folder" if run.stop_path.exists() else None


def _keep_best(loop: Loop, checkpoints: Checkpoints, last: int) -> Iterator[Note]:
    """The artifact is the checkpoint with the lowest held-out loss, which need not be the last."""
    best = checkpoints.best(loop.losses)
    if best is None or best == last or loop.losses[best] >= loop.losses[last]:
        return
    restore_weights(loop.bare, checkpoints.path(best))
    yield Note(
        time=now(),
        text=f"held-out loss was lower at step {best} ({loop.losses[best]:.4f}) than at the end "
        f"({loop.losses[last]:.4f}); the artifact holds step {best}",
    )


def _publish(run: Run, plan: Plan, model: Any, data: Dataset) -> None:
    """adapter/ (plain PEFT) or model/ (plain transformers), and the logits of the trained model on a few held-out
    prompts.
    """
    config = plan.verdict.config
    assert config is not None
    full = METHODS[config.method].trains == "weights"
    if full and plan.facts.model.dtype == "bf16":
        _cast_weights(model, torch.bfloat16)  # saved, and proven, in the precision of the base
    with publish_folder(run.model if full else run.adapter) as folder, quiet_transformers():
        model.save_pretrained(folder)
        copy_text_files(plan.facts.model.path, folder)
        (folder / "README.md").write_text(model_card(plan), encoding="utf-8")  # PEFT's own is an empty form
    if full and config.autocast is None:
        _cast_weights(model, torch.float32)  # the arithmetic that the files will be used in
    allow_packing(model, True)
    prompts = data.prompts()
    with publish_folder(run.proof) as folder:
        save_file({"logits": final_logits(model, prompts).contiguous()}, folder / "trained_logits.safetensors")


def _cast_weights(model: Any, dtype: torch.dtype) -> None:
    """Not `model.to(dtype)`: that would round buffers too (rotary frequencies), which a reload computes in fp32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _failed(error: RankwiseError) -> Failed:
    return Failed(time=now(), what=error.what, expected=error.expected, fix=error.fix)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rankwise.worker")
    parser.add_argument("run", type=Path)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    events_out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between the events
    stop_signal = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop_signal.set())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        run, began = Run.open(arguments.run), psutil.Process().create_time()
        for event in work(run, resume=arguments.resume, stop_signal=stop_signal, began=began):
            print(event.model_dump_json(), file=events_out)
    except RankwiseError as error:
        print(_failed(error).model_dump_json(), file=events_out)
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        wrapped = TrainingError(
            f"{type(error).__name__}: {error}", fix=f"the traceback is in {arguments.run}/worker.log"
        )
        Run(arguments.run).append(_failed(wrapped))
        print(_failed(wrapped).model_dump_json(), file=events_out)
        return 1
    return 0


def _die_with_parent() -> None:
    """The launcher holds the other end of standard input: when it closes, the launcher is gone and so must we be."""
    while os.read(0, 1024):  # not sys.stdin: a thread that waits in its buffer would abort the interpreter's exit
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
