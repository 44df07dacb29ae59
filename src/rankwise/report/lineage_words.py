"""Sentences about what a run went on from, back to the first."""

from rankwise.records import Parent


def ancestry(parent: Parent | None) -> list[str]:
    """One sentence for each adapter or model that training went on from, the latest first; none for a new one."""
    said = []
    while parent is not None:
        said.append(_sentence(parent))
        parent = parent.lineage.parent if parent.lineage else None
    return said


def _sentence(parent: Parent) -> str:
    what = f"Went on from the {parent.kind} {parent.folder} (sha256 `{parent.weights}`)"
    if parent.lineage is None:
        return f"{what}, of which no lineage is known."
    origin = parent.lineage
    return (
        f"{what}, trained on data `{origin.data}` from base weights `{origin.base_weights}` "
        f"(plan `{origin.plan}`, job `{origin.job}`)."
    )
