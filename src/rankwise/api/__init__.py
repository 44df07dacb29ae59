"""The verbs. The only place, with worker.py, where stages meet: each verb is a list of stage calls.

Stages that need torch are imported inside the verbs that use them, so that planning and looking at results start at
once.
"""

from rankwise.api.actuals import actual
from rankwise.api.calibrating import calibrate
from rankwise.api.catalogue import gpus, model, models
from rankwise.api.diagnosing import diagnose, write_diagnosis
from rankwise.api.doctoring import doctor, environment
from rankwise.api.estimating import configuration, estimate, estimate_batch, price_asked, read_batch, single_changes
from rankwise.api.judging import chat, evaluate, evaluate_model
from rankwise.api.lesson import tables, write_tables
from rankwise.api.looking import open_run, report, runs, show
from rankwise.api.observing import observe
from rankwise.api.planning import load_job, plan, plan_job, write_plan
from rankwise.api.progress import Progress, quiet
from rankwise.api.proving import merge, merged_folder, verify
from rankwise.api.recipes import bring
from rankwise.api.training import latest_unfinished, prepare, train

__all__ = [
    "Progress",
    "actual",
    "bring",
    "calibrate",
    "chat",
    "configuration",
    "diagnose",
    "doctor",
    "environment",
    "estimate",
    "estimate_batch",
    "evaluate",
    "evaluate_model",
    "gpus",
    "latest_unfinished",
    "load_job",
    "merge",
    "merged_folder",
    "model",
    "models",
    "observe",
    "open_run",
    "plan",
    "plan_job",
    "prepare",
    "price_asked",
    "quiet",
    "read_batch",
    "report",
    "runs",
    "show",
    "single_changes",
    "tables",
    "train",
    "verify",
    "write_diagnosis",
    "write_plan",
    "write_tables",
]
