"""The general rows that a job's base writes itself: there before anything counts or trains on them."""

from rankwise.api.observing import model_of
from rankwise.api.progress import Progress
from rankwise.errors import ModelError
from rankwise.observe.devices import observe_device
from rankwise.records import Job
from rankwise.records.job import Hardware
from rankwise.text.general import general_path, replay_of
from rankwise.text.template import ChatText

WHAT = "replay rows written by the base"


def ensure_replay(job: Job, progress: Progress) -> None:
    """Have the base write them here, unless it has: minutes to hours, once for a base and a number of rows.

    Raises:
        TrainingError: the base writes nothing that could be learned. ModelError: its files are not here.
    """
    replay = replay_of(job)
    if replay is None or job.data.train is None:
        return
    facts = model_of(job)
    path = general_path(job, facts)
    if path is None or path.is_file():
        return
    if facts.folder is None:
        raise ModelError(f"the files of {job.model} are not here, so it cannot write replay rows")
    from rankwise.train.replay import load_for_replay, write_replay

    device = observe_device(Hardware())
    model = load_for_replay(facts, device)
    progress(WHAT, 0, replay.rows)
    for written in write_replay(path, model, ChatText.from_folder(facts.path, chat_template=job.chat_template), replay):
        progress(WHAT, len(written.rows), replay.rows)
