"""Which recipe is tried first: need and capacity decide it, before anything is priced."""

from collections.abc import Sequence

from rankwise.decide.capacity import bits_per_parameter, need_bits, rank_for
from rankwise.decide.comparisons import earned, method_of, prefers, shown_better
from rankwise.decide.configure import Rung, configure
from rankwise.decide.exclusions import reject
from rankwise.decide.forgetting import spares
from rankwise.decide.priced import Priced
from rankwise.decide.recipes import RECIPES, Recipe
from rankwise.decide.rulebook import threshold
from rankwise.decide.updates import as_asked
from rankwise.methods import METHODS
from rankwise.methods.lora import lora_params
from rankwise.records import Facts, Job, Rejection

ATTENTION = (
    "attn",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "query",
    "key",
    "value",
    "c_attn",
    "qkv",
    "wqkv",
    "out_proj",
)


def recipes_for(job: Job, facts: Facts) -> tuple[Recipe, ...]:
    """The recipes that are looked at on this device, the preferred first; a forced method's before all others."""
    here = [r for r in RECIPES if _forced(job, r) or (not r.asked and (facts.device.kind == "gpu" or r.cpu))]
    return tuple(sorted(here, key=lambda r: (not _forced(job, r), _rank_of(job, facts, r))))


def takeable(job: Job, facts: Facts) -> tuple[Recipe, ...]:
    """Of those, the recipes that may become the verdict, the preferred first."""
    found = tuple(r for r in recipes_for(job, facts) if as_asked(job, r))
    if job.method is not None:
        return tuple(r for r in found if _forced(job, r))
    # nobody has looked at the host's memory
    usual = (r for r in found if _may_be_called(job, facts, r) and r.offload == "none")
    return tuple(r for r in usual if precision_trap(job, facts, r) is None)


def _may_be_called(job: Job, facts: Facts, recipe: Recipe) -> bool:
    return recipe.kind == "usual" or (recipe.kind == "variant" and earned(job, facts, recipe.method))


def compared(job: Job, facts: Facts) -> tuple[Recipe, ...]:
    """The recipes that are looked at to be able to say why not: never the verdict."""
    taken = takeable(job, facts)
    return tuple(r for r in recipes_for(job, facts) if r not in taken)


def _forced(job: Job, recipe: Recipe) -> bool:
    """A forced method means its usual recipe; of full fine-tuning all that keep to the precision may stand in."""
    return job.method is not None and recipe.method == job.method.name and recipe.kind != "unkept"


def _rank_of(job: Job, facts: Facts, recipe: Recipe) -> tuple[float, int]:
    """As the science has it, or behind the method that the owner's own comparison shows to be better; bf16 weights are
    not what was compared.
    """
    by_science = _class_of(job, facts, recipe)
    if recipe.pure_bf16 and prefers(job, facts, recipe.method):
        return (by_science + 0.6, RECIPES.index(recipe))
    shown = shown_better(job, facts, recipe.method)
    better = [] if shown is None else [r for r in RECIPES if r.method == method_of(shown[0], shown[1].winner)]
    least = min((_class_of(job, facts, r) for r in better if _may_be_called(job, facts, r)), default=None)
    behind = by_science if least is None else max(by_science, least + 0.5)
    return (behind, RECIPES.index(recipe))


def _class_of(job: Job, facts: Facts, recipe: Recipe) -> float:
    """Variants that earned it; adapters that hold the need; full fine-tuning; adapters that do not; what is not
    recommended.
    """
    if recipe.kind != "usual":
        return -1 if _may_be_called(job, facts, recipe) else 4
    if recipe.offload != "none" or precision_trap(job, facts, recipe) is not None:
        return 3
    if recipe.trains_weights:
        return 1
    return 0 if holds(job, facts, recipe) or spares(job) else 2


def headroom(job: Job, facts: Facts, recipe: Recipe) -> float:
    """Bits that the recipe's adapter can hold over bits to be learned; full fine-tuning holds what all its parameters
    hold.
    """
    if recipe.trains_weights:
        trained = facts.model.total_params
    else:
        said = job.method if job.method is not None and job.method.name == recipe.method else None
        targets = (said.target_modules if said else None) or "all-linear"
        trained = lora_params(facts.model, (said.r if said else None) or rank_for(job, facts, targets), targets)
    return trained * bits_per_parameter(job) / max(1.0, need_bits(job, facts))


def holds(job: Job, facts: Facts, recipe: Recipe) -> bool:
    return headroom(job, facts, recipe) >= threshold("capacity_suffices", "least")


# -- soft rules that need no price -----------------------------------------------------------------


def capacity_suffices(job: Job, facts: Facts, priced: Priced) -> Rejection | None:
    """An adapter that can hold less than half of what is to be learned is the wrong tool."""
    if not priced.recipe.low_rank:
        return None
    need, held = need_bits(job, facts), priced.estimate.trainable_params * bits_per_parameter(job)
    least = threshold("capacity_suffices", "least") * need
    if held >= least:
        return None
    return reject(
        priced.id,
        "capacity_suffices",
        f"{priced.id} cannot hold what this data teaches.",
        f"{held / 1e6:,.1f} Mbit held, {need / 1e6:,.1f} Mbit to learn",
        f"the rank were {least / held:.1f} times higher",
    )


def precision_trap(job: Job, facts: Facts, recipe: Recipe, candidate: str = "") -> Rejection | None:
    """Pure bf16 weights at a rate at which most updates are rounded away."""
    if not recipe.pure_bf16 or (config := configure(job, facts, recipe, Rung())).bf16_stochastic_round:
        return None
    rate = config.learning_rate
    least = threshold("precision_trap", "rate")
    if rate >= least:
        return None
    return reject(
        candidate or recipe.name,
        "precision_trap",
        f"{candidate or recipe.name} trains bf16 weights at a rate at which most updates are rounded away.",
        f"learning rate {rate:g}, {least:g} needed",
        "the optimizer rounded stochastically, or the weights were kept in fp32",
    )


def discouraged(job: Job, facts: Facts, recipe: Recipe, candidate: str) -> Rejection | None:
    """Methods that lose at equal cost."""
    if recipe.kind != "discouraged":
        return None
    large, size = threshold("discouraged", "large"), facts.model.total_params
    if "num_virtual_tokens" in METHODS[recipe.method].options and size < large:
        number = f"{size / 1e9:.2f} B parameters, {large / 1e9:g} B needed"
        name = "p-tuning" if recipe.method == "p_tuning" else f"{recipe.method} tuning"
        return reject(candidate, "discouraged", f"{name} loses to LoRA on models of this size.", number)
    return reject(candidate, "discouraged", f"{recipe.method} loses to LoRA at equal cost in published comparisons.")


def variant_needs_sweep(job: Job, facts: Facts, recipe: Recipe, candidate: str) -> Rejection | None:
    """Variants of LoRA without their own sweep."""
    if recipe.kind != "variant" or earned(job, facts, recipe.method):
        return None
    return reject(
        candidate,
        "variant_needs_sweep",
        f"{recipe.method} is within noise of plain LoRA once both have their own learning rate.",
        "1 to 2 % apart after a search over rates",
        "your own sweep with three seeds showed a gain",
    )


def attention_only(job: Job, recipe: Recipe, candidate: str) -> Rejection | None:
    """Targets, said in the job, that leave the MLP out."""
    if job.method is None or job.method.name != recipe.method or job.method.target_modules in (None, "all-linear"):
        return None
    said = job.method.target_modules
    names: Sequence[str] = (said,) if isinstance(said, str) else said or ()
    if not all(any(part in name for part in ATTENTION) for name in names):
        return None
    return reject(
        candidate,
        "attention_only",
        "Adapters on attention alone lose to all linear layers at equal parameters.",
        f"targets {', '.join(names)}",
        "method.target_modules were all-linear",
    )
