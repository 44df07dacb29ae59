"""The model card that goes with an adapter or a model: what it was made from, how, and where the evidence is."""

from rankwise.methods import METHODS, TUNERS
from rankwise.records import Plan
from rankwise.report.glossary import method_name
from rankwise.report.lineage_words import ancestry
from rankwise.report.verdict_words import method_phrase


def model_card(plan: Plan, *, merged: bool = False) -> str:
    """Hugging Face front matter and a few lines; numbers are left to evidence.json, which can change by evaluation."""
    facts, config = plan.facts, plan.verdict.config
    adapter = METHODS[plan.verdict.method].trains == "adapter" and not merged
    library = "transformers" if not adapter else "peft" if TUNERS[plan.verdict.method].peft_type else "rankwise"
    what = f"{method_name(plan.verdict.method)} of {facts.model.name}" + (", merged" if merged else "")
    front = [
        "---",
        f"base_model: {plan.job.model}",
        f"library_name: {library}",
        *([f"license: {facts.model.license}"] if facts.model.license else []),
        "pipeline_tag: text-generation",
        "---",
    ]
    body = [
        f"# {plan.job.name or 'run'}: {what}",
        "",
        f"Trained by Rankwise {plan.rankwise_version} with {method_phrase(plan.verdict.method, config)} on "
        f"{facts.data.rows:,} rows ({facts.data.supervised_tokens:,} answer tokens) for `goal: {plan.job.goal}`.",
        "",
        f"Base weights (sha256): `{facts.model.weights_hash}`; data (sha256): `{plan.data_hash}`.",
        "",
        *(line for sentence in ancestry(facts.parent) for line in (sentence, "")),
        "What it learned, what it forgot and whether these files were proven stands in the run's evidence.json, "
        "artifact.json and report.html. Nothing else is claimed for it.",
    ]
    return "\n".join([*front, "", *body]) + "\n"
