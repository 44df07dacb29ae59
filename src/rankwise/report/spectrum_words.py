"""Sentences and tables about the spectra of what trained."""

from collections.abc import Callable, Sequence
from statistics import median

from rankwise.records import ModuleSpectrum, Shrunk, SpectrumSummary, Truncation, Watching
from rankwise.report.glossary import method_name
from rankwise.report.quantities import UNKNOWN, bounds, count, nats, plain, share, size

NO_CONDITION = (
    "Condition numbers are those of A and B alone: an update of rank r in a larger matrix has singular values of 0, so "
    "its own condition number is infinite whatever was trained."
)
HEADS = ("module", "matrices", "rank", "effective rank", "first direction", "norm ratio", "intruders")
KINDS = {
    "run": "A run of rankwise",
    "trainer": "Output of transformers' Trainer",
    "adapter": "An adapter",
    "model": "A whole model",
}
KEEPS = 0.99  # of the gain, from which a rank is said to keep it


def watching_lines(found: Watching) -> list[str]:
    """What was looked at, and how base and weights were held against each other."""
    at = f", step {count(found.step)}" if found.step is not None else ""
    what = f"{KINDS[found.kind]} in {found.folder}: {method_name(found.method)}{at}."
    base = f"Base: {found.base}, matched {found.matched}." if found.base else f"Base: {found.matched}."
    return [what, base]


def spectrum_lines(spectrum: SpectrumSummary | None, no_spectrum: str | None = None) -> list[str]:
    """The update in a few sentences; or why there is no spectrum."""
    if spectrum is None:
        return [f"No spectrum: {no_spectrum or 'none was taken'}."]
    last = spectrum.last
    lines = [f"Update of {count(spectrum.matrices)} matrices: all of them are zero."]
    if last.effective_rank is not None:
        lines = [
            f"Update of {count(spectrum.matrices)} matrices: effective rank {plain(last.effective_rank)} of up to "
            f"{spectrum.rank}, {share(last.first_energy)} of the energy in the first direction (medians)."
        ]
    if last.norm_ratio is not None:
        lines.append(
            f"Its norm is {share(last.norm_ratio)} of the weight's (median), at most "
            f"{share(spectrum.largest_ratio)} ({spectrum.largest_ratio_module})."
        )
    if last.intruders is not None:
        lines.append(f"Intruder directions: {count(last.intruders)} in {count(spectrum.matrices)} matrices.")
    if last.dead:
        lines.append(f"Unchanged: {count(last.dead)} matrices, such as {spectrum.dead_modules[0]}.")
    return lines + growth_lines(spectrum)


def growth_lines(spectrum: SpectrumSummary) -> list[str]:
    """How it grew; nothing where it was looked at once."""
    if len(spectrum.growth) < 2:
        return []
    first, last = spectrum.growth[0], spectrum.growth[-1]
    parts = [f"norm {plain(first.norm)} -> {plain(last.norm)}"]
    if first.effective_rank is not None and last.effective_rank is not None:
        parts.append(f"effective rank {plain(first.effective_rank)} -> {plain(last.effective_rank)}")
    if first.intruders is not None and last.intruders is not None:
        parts.append(f"intruders {count(first.intruders)} -> {count(last.intruders)}")
    return [f"From step {count(first.step)} to {count(last.step)}: {', '.join(parts)}."]


def kind_rows(modules: Sequence[ModuleSpectrum]) -> list[tuple[str, ...]]:
    """A row for each kind of module (the last part of its name), under HEADS; medians, and the sum of intruders."""
    kinds: dict[str, list[ModuleSpectrum]] = {}
    for module in modules:
        kinds.setdefault(module.module.rpartition(".")[2], []).append(module)
    return [_row(kind, found) for kind, found in sorted(kinds.items())]


def _row(kind: str, found: Sequence[ModuleSpectrum]) -> tuple[str, ...]:
    counted = [m.intruders for m in found if m.intruders is not None]
    return (
        kind,
        count(len(found)),
        count(max(m.rank for m in found)),
        _middle([m.effective_rank for m in found], plain) + _bounds(found),
        _middle([m.first_energy for m in found], share),
        _middle([m.norm_ratio for m in found], share),
        count(sum(counted)) if counted else UNKNOWN,
    )


def _middle(values: Sequence[float | None], write: Callable[[float | None], str]) -> str:
    known = [value for value in values if value is not None]
    return write(median(known) if known else None)


def _bounds(found: Sequence[ModuleSpectrum]) -> str:
    """Where only the strongest directions are known: from the lowest to the highest that it can be."""
    ends = [m.effective_rank_interval for m in found if m.effective_rank_interval]
    return f" ({plain(min(low for low, _ in ends))} to {plain(max(high for _, high in ends))})" if ends else ""


def condition_lines(modules: Sequence[ModuleSpectrum]) -> list[str]:
    """Of A and B, and why of nothing else; nothing where no matrix is a product."""
    known = [(m.condition_a, m.condition_b) for m in modules]
    sides = [[c for c in side if c is not None] for side in zip(*known, strict=True)] if known else [[], []]
    if not any(sides):
        return []
    said = [f"of {name} {plain(median(side))} (median)" for name, side in zip("AB", sides, strict=True) if side]
    return [f"Condition number {' and '.join(said)}. {NO_CONDITION}"]


def truncation_sentence(found: Truncation) -> str:
    """Rank 4 of 16 keeps 99 % of the gain (95 %: 97 % to 100 %)."""
    gain = f"the gain is {nats(found.gain)} per token (95 %: {bounds(found.gain_interval, 'nats per token')})"
    enough = next((r for r in found.ranks if r.kept is not None and r.kept >= KEEPS), None)
    if enough is not None and enough.kept is not None and enough.kept_interval is not None:
        span = bounds(enough.kept_interval, "share")
        return f"Rank {enough.rank} of {found.full_rank} keeps {share(enough.kept)} of the gain (95 %: {span}); {gain}."
    if any(r.kept is not None for r in found.ranks):
        return f"No lower rank that was tried keeps {share(KEEPS)} of what rank {found.full_rank} gains; {gain}."
    return f"What a lower rank keeps cannot be told: {gain}."


TRUNCATION_HEADS = ("rank", "held-out loss [nats]", "to the whole adapter", "95 %", "of the gain", "95 %")


def truncation_rows(found: Truncation) -> list[tuple[str, ...]]:
    """Under TRUNCATION_HEADS, the base first and the whole adapter last."""
    rows = [
        (
            str(r.rank),
            plain(r.loss),
            f"{r.difference:+z.4f}",
            bounds(r.interval, "nats per token", signed=True),
            UNKNOWN if r.kept is None else share(r.kept),
            UNKNOWN if r.kept_interval is None else bounds(r.kept_interval, "share"),
        )
        for r in found.ranks
    ]
    ends = [("base", plain(found.base_loss), f"{found.gain:+z.4f}"), (str(found.full_rank), plain(found.full_loss), "")]
    base, whole = ((*end, "", "", "") for end in ends)
    return [base, *rows, whole]


def shrunk_sentence(found: Shrunk) -> str:
    """Where the smaller adapter is, and whether it is proven."""
    proven = "proven" if found.passed else "NOT proven: artifact.json was not written"
    return f"Rank {found.rank} written to {found.folder} ({size(found.adapter_bytes)}), {proven}."
