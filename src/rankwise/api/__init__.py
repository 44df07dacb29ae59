"""The verbs. The only place, with worker/, where stages meet: each verb is a list of stage calls.

A verb's module is loaded when the verb is first used (PEP 562), and stages that need torch inside the verbs that use
them, so that pricing, planning and looking at results start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankwise.api.actuals import actual
    from rankwise.api.bakeoffs import carry_out_comparison, conclude_comparison, how_to_go_on
    from rankwise.api.benchmarks import benchmark, benchmark_model
    from rankwise.api.calibrating import calibrate
    from rankwise.api.catalogue import gpus, model, models
    from rankwise.api.checking import check, check_handed_over
    from rankwise.api.comparing import prepare_comparison
    from rankwise.api.comparisons import (
        comparison_progress,
        find_comparison,
        list_comparisons,
        report_comparison,
        show_comparison,
    )
    from rankwise.api.dealing import Wanted
    from rankwise.api.diagnosing import diagnose, write_diagnosis
    from rankwise.api.doctoring import doctor, environment
    from rankwise.api.estimating import configuration, estimate, estimate_batch, price_asked, read_batch, single_changes
    from rankwise.api.exporting import check_engine, export, push
    from rankwise.api.following import follow, memory_below
    from rankwise.api.inspecting import watch, watched_folder, write_watching
    from rankwise.api.judging import (
        Asked,
        chat,
        evaluate,
        evaluate_against,
        evaluate_model,
        gates,
        judge_of,
        requirements,
    )
    from rankwise.api.launching import launch
    from rankwise.api.lesson import tables, write_tables
    from rankwise.api.looking import open_run, report, runs, show, summary
    from rankwise.api.merging import merge, merge_record, merge_weighted, unmerge
    from rankwise.api.monitoring import Look, Monitor, stop
    from rankwise.api.observing import observe
    from rankwise.api.planning import load_job, plan, plan_job, ready_to_plan, write_plan
    from rankwise.api.progress import Progress, quiet
    from rankwise.api.proving import merged_folder, verify
    from rankwise.api.recipes import bring
    from rankwise.api.serving import Serving, is_loopback, serve
    from rankwise.api.shrinking import shrink
    from rankwise.api.standing import Road, road
    from rankwise.api.tenancy import (
        adapter_store,
        add_tenant,
        limit_tenant,
        other_bases,
        registry,
        show_tenant,
        tenant_names,
    )
    from rankwise.api.training import latest_unfinished, prepare, train

__all__ = [
    "Asked",
    "Look",
    "Monitor",
    "Progress",
    "Road",
    "Serving",
    "Wanted",
    "actual",
    "adapter_store",
    "add_tenant",
    "benchmark",
    "benchmark_model",
    "bring",
    "calibrate",
    "carry_out_comparison",
    "chat",
    "check",
    "check_engine",
    "check_handed_over",
    "comparison_progress",
    "conclude_comparison",
    "configuration",
    "diagnose",
    "doctor",
    "environment",
    "estimate",
    "estimate_batch",
    "evaluate",
    "evaluate_against",
    "evaluate_model",
    "export",
    "find_comparison",
    "follow",
    "gates",
    "gpus",
    "how_to_go_on",
    "is_loopback",
    "judge_of",
    "latest_unfinished",
    "launch",
    "limit_tenant",
    "list_comparisons",
    "load_job",
    "memory_below",
    "merge",
    "merge_record",
    "merge_weighted",
    "merged_folder",
    "model",
    "models",
    "observe",
    "open_run",
    "other_bases",
    "plan",
    "plan_job",
    "prepare",
    "prepare_comparison",
    "price_asked",
    "push",
    "quiet",
    "read_batch",
    "ready_to_plan",
    "registry",
    "report",
    "report_comparison",
    "requirements",
    "road",
    "runs",
    "serve",
    "show",
    "show_comparison",
    "show_tenant",
    "shrink",
    "single_changes",
    "stop",
    "summary",
    "tables",
    "tenant_names",
    "train",
    "unmerge",
    "verify",
    "watch",
    "watched_folder",
    "write_diagnosis",
    "write_plan",
    "write_tables",
    "write_watching",
]

_MODULE = {
    "Asked": "judging",
    "Look": "monitoring",
    "Monitor": "monitoring",
    "Progress": "progress",
    "Road": "standing",
    "Serving": "serving",
    "Wanted": "dealing",
    "actual": "actuals",
    "adapter_store": "tenancy",
    "add_tenant": "tenancy",
    "benchmark": "benchmarks",
    "benchmark_model": "benchmarks",
    "bring": "recipes",
    "calibrate": "calibrating",
    "carry_out_comparison": "bakeoffs",
    "chat": "judging",
    "check": "checking",
    "check_engine": "exporting",
    "check_handed_over": "checking",
    "comparison_progress": "comparisons",
    "conclude_comparison": "bakeoffs",
    "configuration": "estimating",
    "diagnose": "diagnosing",
    "doctor": "doctoring",
    "environment": "doctoring",
    "estimate": "estimating",
    "estimate_batch": "estimating",
    "evaluate": "judging",
    "evaluate_against": "judging",
    "evaluate_model": "judging",
    "export": "exporting",
    "find_comparison": "comparisons",
    "follow": "following",
    "gates": "judging",
    "gpus": "catalogue",
    "how_to_go_on": "bakeoffs",
    "is_loopback": "serving",
    "judge_of": "judging",
    "latest_unfinished": "training",
    "launch": "launching",
    "limit_tenant": "tenancy",
    "list_comparisons": "comparisons",
    "load_job": "planning",
    "memory_below": "following",
    "merge": "merging",
    "merge_record": "merging",
    "merge_weighted": "merging",
    "merged_folder": "proving",
    "model": "catalogue",
    "models": "catalogue",
    "observe": "observing",
    "open_run": "looking",
    "other_bases": "tenancy",
    "plan": "planning",
    "plan_job": "planning",
    "prepare": "training",
    "prepare_comparison": "comparing",
    "price_asked": "estimating",
    "push": "exporting",
    "quiet": "progress",
    "read_batch": "estimating",
    "ready_to_plan": "planning",
    "registry": "tenancy",
    "report": "looking",
    "report_comparison": "comparisons",
    "requirements": "judging",
    "road": "standing",
    "runs": "looking",
    "serve": "serving",
    "show": "looking",
    "show_comparison": "comparisons",
    "show_tenant": "tenancy",
    "shrink": "shrinking",
    "single_changes": "estimating",
    "stop": "monitoring",
    "summary": "looking",
    "tables": "lesson",
    "tenant_names": "tenancy",
    "train": "training",
    "unmerge": "merging",
    "verify": "proving",
    "watch": "inspecting",
    "watched_folder": "inspecting",
    "write_diagnosis": "diagnosing",
    "write_plan": "planning",
    "write_tables": "lesson",
    "write_watching": "inspecting",
}


def __getattr__(name: str) -> Any:
    if name in _MODULE:
        return getattr(import_module(f"rankwise.api.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'rankwise.api' has no attribute {name!r}")
