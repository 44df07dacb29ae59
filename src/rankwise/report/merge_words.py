"""What a merge did, in sentences."""

from collections.abc import Sequence
from statistics import median

from rankwise.records import Merge, MergedTensor, Plan
from rankwise.report.glossary import method_name

HELD = {"nf4": "NF4 (4 bit, doubly quantised)", "int8": "LLM.int8 (8 bit)"}
WAYS = {
    "linear": "a weighted sum of their updates",
    "ties": "TIES",
    "dare_linear": "DARE, summed",
    "dare_ties": "DARE with TIES",
}
SHOWN = 3  # layers that are named


def merge_sentences(done: Merge) -> list[str]:
    """How many tensors changed, how, and what the quantisation has to do with it."""
    verb = "taken back" if done.how == "undone" else "changed"
    said = [
        f"{len(done.changed):,} tensors {verb} and {done.copied:,} copied ({done.bytes / 1e9:,.2f} GB) in "
        f"{done.seconds:,.1f} s."
    ]
    if done.how in WAYS:
        shares = ", ".join(f"{a.weight:g} of {a.path}" for a in done.adapters)
        kept = f", {done.density:.0%} of each kept" if done.density is not None else ""
        said.append(f"{len(done.adapters)} adapters by {WAYS[done.how]}{kept}: {shares}.")
    if done.how == "undone":
        said.append(
            f"Largest difference of a weight from the base: {done.undone_difference:.2g}; "
            f"{done.undone_equal:.2%} of the weights are the base's, bit for bit."
        )
    return [*said, *quantisation_sentences(done)]


def quantisation_sentences(done: Merge) -> list[str]:
    """Why an adapter of a quantised base is merged onto the dequantised one, in this merge's own numbers; nothing for
    others.
    """
    both = [(_ratio(t), t) for t in done.changed if t.quantisation_error and t.delta_norm]
    if done.stored_as == "as-loaded" or not both:
        return []
    ratios = [ratio for ratio, _ in both]
    over = sum(ratio < 1 for ratio in ratios)
    least = sorted(both, key=lambda pair: pair[0])[:SHOWN]
    named = ", ".join(f"{t.tensor} ({ratio:.2f})" for ratio, t in least)
    return [
        f"Merged onto the base as it was trained on: quantised to {HELD[done.stored_as]} and dequantised. Onto the "
        "weights as stored, every output would shift by the quantisation error, which the adapter learned around.",
        f"The adapter's update is {median(ratios):.2f} times as large as the quantisation error in the median layer "
        f"(Frobenius norms), and smaller than it in {over} of {len(both)}; smallest: {named}.",
    ]


def _ratio(tensor: MergedTensor) -> float:
    assert tensor.delta_norm is not None and tensor.quantisation_error
    return tensor.delta_norm / tensor.quantisation_error


def blend_card(done: Merge, plans: Sequence[Plan]) -> str:
    """README.md of a model of several adapters: front matter and what went in."""
    facts = plans[0].facts.model
    front = [
        "---",
        f"base_model: {plans[0].job.model}",
        "library_name: transformers",
        *([f"license: {facts.license}"] if facts.license else []),
        "pipeline_tag: text-generation",
        "tags: [merge]",
        "---",
    ]
    rows = [
        f"- {adapter.weight:g} of {plan.job.name or 'run'} ({method_name(plan.verdict.method)}, goal "
        f"{plan.job.goal}, adapter sha256 `{adapter.sha256}`)"
        for adapter, plan in zip(done.adapters, plans, strict=True)
    ]
    body = [
        f"# {facts.name} with {len(rows)} adapters, by {WAYS[done.how]}",
        "",
        *rows,
        "",
        f"Base weights (sha256): `{facts.weights_hash}`. merge.json beside this says what was done to which tensor.",
        "No proof covers a blend: it is none of the models that were trained. Evaluate it before use.",
    ]
    return "\n".join([*front, "", *body]) + "\n"
