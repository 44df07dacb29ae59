"""From a run folder to its events: the plan carried out, step by step."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rankwise.errors import DataError, OutOfMemory, RankwiseError
from rankwise.files import disk_was_full, write_record
from rankwise.model.apart import require_apart
from rankwise.model.attach import adapter_scale, total_params, trainable_params
from rankwise.records import Event, Failed, Finished, Note, Plan, Started, TrainConfig, Validation
from rankwise.store import Run, now
from rankwise.text.dataset import Dataset, load_dataset
from rankwise.text.general import general_path, replay_of
from rankwise.text.hashes import cached_hash
from rankwise.text.sources import hash_source
from rankwise.text.template import ChatText
from rankwise.train.checkpoints import Checkpoints
from rankwise.train.engines.asserted import require_planned, require_world
from rankwise.train.engines.choice import start_engine
from rankwise.train.engines.group import Group, rank
from rankwise.train.loop import Loop
from rankwise.train.mirror import Mirror
from rankwise.train.mixing import mix
from rankwise.train.optimizers import make_optimizer
from rankwise.train.replay import load_for_replay, write_replay
from rankwise.train.trackers import reporters
from rankwise.watch.evidence import summarise
from rankwise.worker.models import model_to_train, whole_model
from rankwise.worker.publishing import publish
from rankwise.worker.spectra import Spectra
from rankwise.worker.validating import HeldOut
from rankwise.worker.watching import guard_of


def work(
    run: Run,
    *,
    resume: bool,
    stop_signal: threading.Event,
    micro_batch: int | None = None,
    began: float | None = None,
) -> Iterator[Event]:
    """Carry the plan of `run` out and yield its events; they are on disk before they are yielded.

    Args:
        micro_batch: rows in one forward pass at the most; None: as planned.
        began: seconds since the epoch, from when loading is counted; None: from now.

    Raises:
        RankwiseError: in use, not resumable, data or training faults. Already written as a `failed` event.
    """
    if rank() > 0:
        yield from _road(run, resume, stop_signal, micro_batch, began or time.time())
        return
    with run.lock():
        run.stop_path.unlink(missing_ok=True)
        run.mend_events()
        try:
            yield from _told(run, _road(run, resume, stop_signal, micro_batch, began or time.time()))
        except Exception as error:
            said = error if isinstance(error, RankwiseError) else disk_was_full(error, run.folder)
            if said is None:
                raise
            with suppress(OSError):  # a full disk may have no room for that line either
                run.append(failed(said))
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


def _road(
    run: Run, resume: bool, stop_signal: threading.Event, micro_batch: int | None, began: float
) -> Iterator[Event]:
    plan = run.plan()
    config = plan.verdict.config
    assert config is not None, "a plan without a configuration is refused before the worker starts"
    chat = ChatText.for_job(plan.job, plan.facts.model.path)
    group = Group.join(cpu=plan.facts.device.kind == "cpu")
    require_world(plan.facts.device.count, group.world)
    if group.first:
        yield from _written_replay(plan)
    group.meet()
    _require_same_data(plan)
    data = _rows(plan, config, chat)
    yield from _notes(data, config)
    parallel = plan.verdict.parallel or "none"
    engine = start_engine(parallel, group, config)
    checkpoints = _checkpoints(run, plan, config, group, resume)
    start, skipped = group.from_first(checkpoints.newest_sound() if resume and group.first else (None, []))
    model = model_to_train(plan, config, engine, checkpoints.path(start) if start is not None else None)
    params = trainable_params(model), total_params(model)
    adapter = dict(zip(("adapter_r", "adapter_scaling"), adapter_scale(model), strict=True))
    engine.wrap(model, lambda wrapped: make_optimizer(wrapped, config))
    require_planned(engine, parallel, plan.facts.device.kind)
    for sentence in skipped:
        yield Note(time=now(), text=sentence)
    guard = guard_of(plan, config, engine, checkpoints, data, chat)
    held_out = HeldOut(engine, data.validation, chat, config.autocast)
    loop = Loop(
        engine,
        mix(data.train, data.replay, config.replay_share, config.seed),
        config,
        pad_token_id=chat.pad_token_id if chat.pad_token_id is not None else 0,
        checkpoints=checkpoints,
        validate=held_out.validate,
        try_validation=held_out.try_longest,
        stop=lambda: _reason_to_stop(run, stop_signal, group),
        plan_hash=plan.content_hash(),
        params=params,
        most_rows=micro_batch,
        guard=guard,
    )
    if config.packing:
        require_apart(model, loop.two_documents(), config.autocast, loop.attention)
    load_seconds = time.time() - began
    spectra = Spectra(plan, config, engine)
    for event in loop.events(start):
        if isinstance(event, Started):
            event = event.model_copy(update={"load_seconds": load_seconds, **adapter})
        if isinstance(event, Finished):
            if loop.back_to is None:
                yield from _keep_best(loop, checkpoints, event.step)
            whole = whole_model(plan, config, engine)
            if whole is not None:
                publish(run, plan, whole, data, chat)
        yield event
        if isinstance(event, Validation):
            yield from spectra.after(event.step)
    if group.first:
        write_record(run.evidence_path, summarise(plan, run.events()))
    group.meet()
    group.leave()


def _rows(plan: Plan, config: TrainConfig, chat: ChatText) -> Dataset:
    return load_dataset(
        plan.job,
        chat,
        general=general_path(plan.job, plan.facts.model),
        max_length=config.max_length,
        on_long=config.on_long,
        seed=plan.split_seed,
    )


def _checkpoints(run: Run, plan: Plan, config: TrainConfig, group: Group, resume: bool) -> Checkpoints:
    """Those of this run, with the place that the first process copies them to."""
    mirror = Mirror(config.save_url, run, plan.content_hash()) if config.save_url and group.first else None
    if mirror:
        mirror.begin(resume=resume)
    estimate = plan.chosen()
    return Checkpoints(run, config, estimate.storage.checkpoint_bytes if estimate else 0, mirror)


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


def failed(error: RankwiseError) -> Failed:
    """The event that ends a run which went wrong."""
    rows = error.rows if isinstance(error, OutOfMemory) else None
    return Failed(time=now(), what=error.what, expected=error.expected, fix=error.fix, out_of_memory_rows=rows)
