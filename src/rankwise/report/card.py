"""The model card that goes with an adapter or a model: data, method, evidence, limits.

Evidence can change after training, by evaluation. It stands between two marks, and is written again there; whatever a
person wrote elsewhere in the card stays.
"""

from rankwise.methods import METHODS, TUNERS
from rankwise.records import Evidence, Plan
from rankwise.report.event_words import comparison_line
from rankwise.report.glossary import method_name
from rankwise.report.learned_words import comparison_of, knows_or_sounds
from rankwise.report.lineage_words import ancestry
from rankwise.report.quantities import count, measured
from rankwise.report.verdict_words import method_phrase
from rankwise.report.watch_words import watched_sentence

BEGIN, END = "<!-- evidence of the run: begin -->", "<!-- evidence of the run: end -->"
# What a card tells of an evaluation: format, facts, general ability.
TOLD = ("format", "exact_match", "heldout_loss", "facts", "confident_wrong", "general_loss")


def model_card(plan: Plan, *, merged: bool = False, evidence: Evidence | None = None) -> str:
    """Hugging Face front matter and the sections Data, Method, Evidence and Limits."""
    facts, config = plan.facts, plan.verdict.config
    what = f"{method_name(plan.verdict.method)} of {facts.model.name}" + (", merged" if merged else "")
    sections = {
        "Data": [
            f"{count(facts.data.rows)} rows ({count(facts.data.supervised_tokens)} answer tokens) for "
            f"`goal: {plan.job.goal}`.",
            f"sha256 of the data: `{plan.data_hash}`.",
        ],
        "Method": [
            f"{method_phrase(plan.verdict.method, config)}, by Rankwise {plan.rankwise_version}.",
            f"sha256 of the base weights: `{facts.model.weights_hash}`.",
            *ancestry(facts.parent),
        ],
        "Evidence": [BEGIN, *_evidence(evidence), END],
        "Limits": _limits(plan, merged),
    }
    body = [f"# {plan.job.name or 'run'}: {what}", ""]
    for title, said in sections.items():
        body += [f"## {title}", "", *(line for sentence in said for line in (sentence, ""))]
    return "\n".join([*_front(plan, merged), "", *body])


def with_evidence(card: str, evidence: Evidence | None) -> str:
    """The card with what is known now between its marks; as it is where it has none."""
    before, begin, rest = card.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not begin or not end:
        return card
    said = "\n".join(line for sentence in _evidence(evidence) for line in ("", sentence))
    return f"{before}{begin}{said}\n\n{end}{after}"


def _front(plan: Plan, merged: bool) -> list[str]:
    license = plan.facts.model.license
    adapter = METHODS[plan.verdict.method].trains == "adapter" and not merged
    library = "transformers" if not adapter else "peft" if TUNERS[plan.verdict.method].peft_type else "rankwise"
    return [
        "---",
        f"base_model: {plan.job.model}",
        f"library_name: {library}",
        *([f"license: {license}"] if license else []),
        "pipeline_tag: text-generation",
        "---",
    ]


def _evidence(evidence: Evidence | None) -> list[str]:
    """What was measured; the intervals are of 95 %."""
    if evidence is None:
        return ["Nothing was measured yet when this was written."]
    said = []
    before, best = evidence.base_validation_loss, evidence.best_validation_loss
    if before is not None and best is not None:
        unit = "nats per token"
        said.append(f"Loss on held-out rows: {measured(before, unit)} -> {measured(best, unit)}.")
    if (found := evidence.evaluation) is not None:
        lines = [comparison_line(c) for name in TOLD if (c := comparison_of(found, name))]
        said += [knows_or_sounds(found), *(f"- {line}" for line in lines)]
    else:
        said.append("Format and facts were not evaluated: `rankwise eval` does that.")
    said.append(watched_sentence(evidence.forgetting) if evidence.forgetting else "Forgetting was not watched.")
    return said


def _limits(plan: Plan, merged: bool) -> list[str]:
    """What it was not made for, or nobody looked at."""
    model, config = plan.facts.model, plan.verdict.config
    said = [
        "Trained for the data above alone; nothing but what stands under Evidence is claimed for it. Whether the files "
        "were proven stands in the run's artifact.json.",
        f"The licence of the base ({model.license}) holds for it as well."
        if model.license
        else "The licence of the base is unknown: its card names none.",
    ]
    if config is not None:
        said.append(f"Rows had at most {count(config.max_length)} tokens; longer texts were not trained.")
        if METHODS[config.method].trains == "adapter" and not merged:
            stored = TUNERS[config.method].base
            four = {"nf4": " in 4 bit (NF4)", "int8": " in 8 bit"}.get(stored, "")
            said.append(
                f"An adapter of `{plan.job.model}`{four}, on which it was trained; what it does on other weights is "
                "not known."
            )
    if not plan.facts.data.facts:
        said.append("No closed-book questions were given, so what it knows is not known.")
    return said
