"""The null comparison over a wide grid, with the table that docs/log.md holds. `python -m tests.compare.test_null_grid`
prints it."""

from itertools import product

import numpy as np
import pytest

from tests.compare.simulated import cannot_tell, same_method, table

UNITS, ARMS, SEEDS, ITEMS = ("share", "nats per token"), (2, 3, 4), (2, 3, 5), (40, 100, 200)
RUNS = (0.0, 0.1, 0.2, 0.5, 1.0)
ANSWERS = (0.1, 1.0)


def least(unit: str, arms: int, seeds: int, repeats: int = 2) -> tuple[float, float]:
    """(least, mean) share of "cannot tell" over items and noises, each of 1,000 x repeats comparisons."""
    draws = np.random.default_rng([arms, seeds, len(unit)])
    found = []
    for items, by_seed, by_answer in product(ITEMS, RUNS, ANSWERS):
        shares = [cannot_tell(same_method(draws, unit, arms, seeds, items, by_seed, by_answer)) for _ in range(repeats)]
        found.append(float(np.mean(shares)))
    return min(found), float(np.mean(found))


def unlike(arms: int, seeds: int) -> float:
    """Methods of the same mean, of which every second scatters ten times as much between seeds; 200 items, and answers
    that hardly vary in themselves.
    """
    draws, found = np.random.default_rng([arms, seeds]), []
    scatter = np.where(np.arange(arms) % 2 == 0, 1.0, 0.1)[None, :, None, None]
    for _ in range(4):
        item = draws.normal(0.0, 1.5, (1000, 1, 1, 200))
        run = scatter * draws.normal(0.0, 1.0, (1000, arms, seeds, 1))
        answers = (item + run + 0.1 * draws.logistic(size=(1000, arms, seeds, 200)) > 0).astype(float)
        found.append(cannot_tell(table(answers, "share")))
    return float(np.mean(found))


@pytest.mark.prove
@pytest.mark.parametrize(("unit", "arms", "seeds"), list(product(UNITS, ARMS, SEEDS)))
def test_null_holds_over_the_grid(unit: str, arms: int, seeds: int) -> None:
    assert least(unit, arms, seeds)[0] >= 0.929


def wild(arms: int, seeds: int) -> float:
    """Seeds that move more than items do: shares of one method from 10 to 90 %, as far from normal as shares get."""
    draws = np.random.default_rng([arms, seeds])
    return float(np.mean([cannot_tell(same_method(draws, "share", arms, seeds, 100, 2.0, 0.1)) for _ in range(4)]))


@pytest.mark.prove
@pytest.mark.parametrize(("arms", "seeds"), list(product(ARMS, SEEDS)))
def test_wild_seeds_are_told_apart_a_little_too_often(arms: int, seeds: int) -> None:
    assert wild(arms, seeds) >= 0.91


@pytest.mark.prove
@pytest.mark.parametrize(("arms", "seeds"), list(product(ARMS, SEEDS)))
def test_methods_that_scatter_unlike_are_told_apart_too_often(arms: int, seeds: int) -> None:
    """What the pooled noise costs where its assumption is broken: docs/compare-statistics.md names it."""
    assert unlike(arms, seeds) >= 0.84


if __name__ == "__main__":
    print("| arms | seeds | shares, least (mean) of 30 | losses | seeds move more than items | arms scatter unlike |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for arms, seeds in product(ARMS, SEEDS):
        cells = ["{:.3f} ({:.3f})".format(*least(unit, arms, seeds)) for unit in UNITS]
        print(f"| {arms} | {seeds} | {' | '.join(cells)} | {wild(arms, seeds):.3f} | {unlike(arms, seeds):.3f} |")
