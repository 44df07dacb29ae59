"""The process that trains: a run folder in, events out. Started by train/launch.py; of a run on several devices there
are as many, started by torchrun, or by whoever sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.

    python -m rankwise.worker RUN [--resume]

The first process alone writes: each event goes to events.jsonl and, as the same line, to standard output; everything
else goes to standard error.
"""

import argparse
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.utils import set_seed
from safetensors.torch import save_file

from rankwise.errors import DataError, RankwiseError, TrainingError
from rankwise.methods import METHODS, TUNERS
from rankwise.methods.vocabulary import MODULES_TO_SAVE
from rankwise.model.apart import require_apart
from rankwise.model.attach import allow_packing, attach, total_params, trainable_params
from rankwise.model.likelihood import final_logits, row_losses
from rankwise.model.load import load_base, quiet_transformers
from rankwise.model.trained import publish_weights, restore_weights
from rankwise.model.vocabulary import cast_whole_modules, extend
from rankwise.records import Event, Failed, Finished, Note, Plan, Started, TrainConfig, Validation
from rankwise.report.card import model_card
from rankwise.store import LINEAGE, Run, disk_was_full, now, publish_folder, write_record, write_text
from rankwise.text.dataset import Dataset, load_dataset
from rankwise.text.files import copy_text_files
from rankwise.text.fitting import lengths_of
from rankwise.text.general import general_path, replay_of
from rankwise.text.hashes import cached_hash
from rankwise.text.masks import Encoded
from rankwise.text.sources import hash_source
from rankwise.text.template import ChatText
from rankwise.train.checkpoints import Checkpoints
from rankwise.train.engines.asserted import require_planned, require_world
from rankwise.train.engines.choice import start_engine
from rankwise.train.engines.engine import Engine
from rankwise.train.engines.group import Group, rank, world_size
from rankwise.train.loop import Loop
from rankwise.train.mirror import Mirror
from rankwise.train.mixing import mix
from rankwise.train.optimizers import make_optimizer
from rankwise.train.replay import load_for_replay, write_replay
from rankwise.train.trackers import reporters
from rankwise.watch.evidence import summarise

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # set by torchrun: where a process leaves why it failed
LOST = ("connection closed by peer", "connection reset by peer", "connection refused", "gloo", "nccl", "broken pipe")


def work(run: Run, *, resume: bool, stop_signal: threading.Event, began: float | None = None) -> Iterator[Event]:
    """Carry the plan of `run` out and yield its events; they are on disk before they are yielded.

    Args:
        began: seconds since the epoch, from when loading is counted; None: from now.

    Raises:
        RankwiseError: in use, not resumable, data or training faults. Already written as a `failed` event.
    """
    if rank() > 0:
        yield from _road(run, resume, stop_signal, began or time.time())
        return
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
    chat = ChatText.for_job(plan.job, plan.facts.model.path)
    seed = config.seed
    group = Group.join(cpu=plan.facts.device.kind == "cpu")
    require_world(plan.facts.device.count, group.world)
    if group.first:
        yield from _written_replay(plan)
    group.meet()
    _require_same_data(plan)
    data = load_dataset(
        plan.job,
        chat,
        general=general_path(plan.job, plan.facts.model),
        max_length=config.max_length,
        on_long=config.on_long,
        seed=seed,
    )
    yield from _notes(data, config)
    parallel = plan.verdict.parallel or "none"
    engine = start_engine(parallel, group, config)
    mirror = Mirror(config.save_url, run, plan.content_hash()) if config.save_url and group.first else None
    if mirror:
        mirror.begin(resume=resume)
    checkpoints = Checkpoints(run, config, plan_checkpoint_bytes(plan), mirror)
    start, skipped = group.from_first(checkpoints.newest_sound() if resume and group.first else (None, []))
    model = _model(plan, config, engine, checkpoints.path(start) if start is not None else None)
    params = trainable_params(model), total_params(model)
    engine.wrap(model, lambda wrapped: make_optimizer(wrapped, config))
    require_planned(engine, parallel, plan.facts.device.kind)
    for sentence in skipped:
        yield Note(time=now(), text=sentence)
    loop = Loop(
        engine,
        mix(data.train, data.replay, config.replay_share, seed),
        config,
        pad_token_id=chat.pad_token_id if chat.pad_token_id is not None else 0,
        checkpoints=checkpoints,
        validate=lambda step: _validate(engine, data, config, step),
        try_validation=lambda: row_losses(engine.module, _longest(data.validation), autocast=config.autocast),
        stop=lambda: _reason_to_stop(run, stop_signal, group),
        plan_hash=plan.content_hash(),
        params=params,
    )
    if config.packing:
        require_apart(model, loop.two_documents(), config.autocast, loop.attention)
    load_seconds = time.time() - began
    for event in loop.events(start):
        if isinstance(event, Started):
            event = event.model_copy(update={"load_seconds": load_seconds})
        if isinstance(event, Finished):
            yield from _keep_best(loop, checkpoints, event.step)
            whole = _whole(plan, config, engine)
            if whole is not None:
                _publish(run, plan, whole, data, chat)
        yield event
    if group.first:
        write_record(run.evidence_path, summarise(plan, run.events()))
    group.meet()
    group.leave()


def _whole(plan: Plan, config: TrainConfig, engine: Engine) -> Any:
    """The trained model, to be published and looked at by the first process; None in the others. One that was split is
    put together from memory on the CPU, where its proof is checked as well.
    """
    state = engine.full_state(trained_only=METHODS[config.method].trains == "adapter")
    engine.close()
    if not engine.group.first:
        return None
    if state is None:
        return engine.bare
    model = _attached(plan, config, "cpu", None)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name in parameters.keys() & state.keys():
            parameters[name].copy_(state[name])
    return model


def _written_replay(plan: Plan) -> Iterator[Note]:
    """General rows that the base has yet to write: usually it has, before the plan was made."""
    replay, path = replay_of(plan.job), general_path(plan.job, plan.facts.model)
    if replay is None or path is None or path.is_file():
        return
    began = time.monotonic()
    yield Note(time=now(), text=f"the base writes {replay.rows} rows for replay, once: {path}")
    model = load_for_replay(plan.facts.model, plan.facts.device)
    chat = ChatText.from_folder(plan.facts.model.path, chat_template=plan.job.chat_template)
    for written in write_replay(path, model, chat, replay):
        yield Note(time=now(), text=f"replay: {written.sentence()}, {time.monotonic() - began:.0f} s")


def _require_same_data(plan: Plan) -> None:
    """A file or a dataset of the hub may have changed since the plan was made, or be another one on this machine. What
    the base has written here is its own.
    """
    written = general_path(plan.job, plan.facts.model) if replay_of(plan.job) else None
    for name, digest in plan.facts.data.files.items():
        if Path(name) != written and hash_source(Path(name), cached_hash) != digest:
            raise DataError(
                name,
                None,
                "the rows are not those that the plan was made for",
                expected=f"the data with the sha256 {digest}",
                fix="plan again with these rows, or bring back the others",
            )


def plan_checkpoint_bytes(plan: Plan) -> int:
    estimate = plan.chosen()
    return estimate.storage.checkpoint_bytes if estimate else 0


def _model(plan: Plan, config: TrainConfig, engine: Engine, resumed: Path | None) -> Any:
    set_seed(config.seed)  # the adapter's initial values and dropout follow from it
    with engine.loading():
        model = _attached(plan, config, str(engine.loads_on), resumed)
    if config.adapter and resumed is None:
        restore_weights(model, Path(config.adapter))
    if engine.group.rank > 0:
        set_seed(config.seed + engine.group.rank)  # dropout of its own
    return model


def _attached(plan: Plan, config: TrainConfig, device: str, resumed: Path | None) -> Any:
    base = load_base(
        plan.facts.model.path,
        dtype=config.dtype,
        four_bit=TUNERS[config.method].base == "nf4",
        eight_bit=TUNERS[config.method].base == "int8",
        device=device,
    )
    return attach(extend(base, plan.facts.new_tokens), config, resumed=resumed)


def _notes(data: Dataset, config: TrainConfig) -> Iterator[Note]:
    if data.apart:
        text = f"{data.apart} conversations are trained as several texts, since the template rewrites earlier turns"
        yield Note(time=now(), text=text)
    lengths = data.lengths
    if lengths.long_rows:
        yield Note(
            time=now(),
            text=f"{lengths.long_rows} of {lengths.rows} training rows are longer than {config.max_length} tokens "
            f"(longest {data.longest}); on_long: {config.on_long}: {lengths.dropped_rows} rows dropped, "
            f"{lengths.lost_supervised_tokens} answer tokens lost",
        )


def _validate(engine: Engine, data: Dataset, config: TrainConfig, step: int) -> Validation:
    """Every process looks at its share of the rows, and at equally many: under ZeRO-3 and FSDP all must be there."""
    began, group, rows = time.monotonic(), engine.group, data.validation
    own = [rows[i] for i in range(group.rank, len(rows), group.world)]
    filled = own + [rows[0]] * (-(-len(rows) // group.world) - len(own))
    found = row_losses(engine.module, filled, autocast=config.autocast)[: len(own)]
    losses = [said for each in group.gathered(found) for said in each]
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


def _longest(rows: Sequence[Encoded]) -> list[Encoded]:
    lengths = lengths_of(rows)
    return [rows[max(range(len(rows)), key=lengths.__getitem__)]]


REASONS = (None, "a file named `stop` was put into the run folder", "asked to stop (Ctrl-C or SIGTERM)")


def _reason_to_stop(run: Run, stop_signal: threading.Event, group: Group) -> str | None:
    """The processes agree on it, so that all of them stop after the same step."""
    own = 2 if stop_signal.is_set() else int(group.first and run.stop_path.exists())
    return REASONS[group.highest(own)]


def _keep_best(loop: Loop, checkpoints: Checkpoints, last: int) -> Iterator[Note]:
    """The artifact is the checkpoint with the lowest held-out loss, which need not be the last."""
    best = checkpoints.best(loop.losses)
    if best is None or best == last or loop.losses[best] >= loop.losses[last]:
        return
    loop.engine.restore_weights(checkpoints.path(best))
    yield Note(
        time=now(),
        text=f"held-out loss was lower at step {best} ({loop.losses[best]:.4f}) than at the end "
        f"({loop.losses[last]:.4f}); the artifact holds step {best}",
    )


def _publish(run: Run, plan: Plan, model: Any, data: Dataset, chat: ChatText) -> None:
    """adapter/ (plain PEFT) or model/ (plain transformers), and the logits of the trained model on a few held-out
    prompts.
    """
    config = plan.verdict.config
    assert config is not None
    full = METHODS[config.method].trains == "weights"
    if full and plan.facts.model.dtype == "bf16":
        _cast_weights(model, torch.bfloat16)  # saved, and proven, in the precision of the base
    if config.new_token_rows == MODULES_TO_SAVE:
        cast_whole_modules(model, config.dtype)
    with publish_folder(run.model if full else run.adapter) as folder, quiet_transformers():
        publish_weights(model, folder)
        copy_text_files(plan.facts.model.path, folder, plan.job.chat_template)
        if config.new_token_ids:
            chat.save_tokenizer(folder)
        write_record(folder / LINEAGE, plan.lineage())
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
    parser.add_argument("--held", action="store_true", help="standard input is the launcher's: bytes ask to stop")
    arguments = parser.parse_args()
    events_out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between the events
    stop_signal = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop_signal.set())
    if arguments.held:
        threading.Thread(target=_die_with_parent, args=(stop_signal,), daemon=True).start()
    try:
        run, began = Run.open(arguments.run), psutil.Process().create_time()
        for event in work(run, resume=arguments.resume, stop_signal=stop_signal, began=began):
            if rank() == 0:
                print(event.model_dump_json(), file=events_out)
    except RankwiseError as error:
        return _tell(_failed(error), events_out, error.exit_code, _error_file(arguments))
    except Exception as error:
        traceback.print_exc()
        first_line = next(iter(str(error).splitlines()), "")
        who = f"process {rank()} of {world_size()}: " if world_size() > 1 else ""
        what = f"{who}{type(error).__name__}: {first_line}"
        wrapped = TrainingError(what, fix=f"the traceback is in {arguments.run}/worker.log")
        file = _error_file(arguments)
        if file is None and rank() == 0:
            Run(arguments.run).append(_failed(wrapped))
        return _tell(_failed(wrapped), events_out, 1, file, consequence=_lost_another(error))
    return 0


def _error_file(arguments: argparse.Namespace) -> Path | None:
    """Where one of several processes leaves why it failed: torchrun then says which was the first."""
    path = os.environ.get(ERROR_FILE)
    return Path(path) if arguments.held and path and world_size() > 1 else None


def _tell(failed: Failed, events_out: Any, code: int, file: Path | None, *, consequence: bool = False) -> int:
    """To whoever started this process: as a line, or in torchrun's file."""
    if file is not None:
        said = json.dumps({"failed": failed.model_dump(), "consequence": consequence})
        write_text(file, json.dumps({"message": said, "timestamp": int(time.time())}))
    elif rank() == 0:
        print(failed.model_dump_json(), file=events_out)
    if world_size() > 1:  # at once: a collective that waits for this process would hold the interpreter's exit
        events_out.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _lost_another(error: Exception) -> bool:
    """Is it what a process sees when another one has died?"""
    said = str(error).lower()
    return isinstance(error, torch.distributed.DistBackendError) or any(word in said for word in LOST)


def _die_with_parent(stop_signal: threading.Event) -> None:
    """The launcher holds the other end of standard input: when it closes, the launcher is gone and so must we be. What
    it writes asks to stop; one of several processes reads it, and they agree on it.
    """
    while os.read(0, 1024):  # not sys.stdin: a thread that waits in its buffer would abort the interpreter's exit
        stop_signal.set()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
