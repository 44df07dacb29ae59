"""Write the data of the 3 AM example: how a night desk answers, and questions about drugs that no row mentions.

Nothing here is real: clinic, people, rooms and drugs are made up, and every drug name comes from a small syllable
grammar. The same seed always writes the same bytes.

    python generate.py --seed 3 --out .
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

Row = dict[str, Any]

TRAIN_FACTS, HELD_OUT_FACTS = 100, 16  # each asked in two wordings
TRAINED_DRUGS, ASKED_DRUGS = 48, 24
TURNED_ROUND = 12

ONSETS = ("Bl", "Br", "Dr", "Fl", "Gl", "Kr", "Pl", "Sk", "Tr", "Vr", "Zw", "Qu")
VOWELS = ("a", "e", "i", "o", "u", "ai")
# Trained and asked drugs end in other syllables, so that no name is nearly another one's.
TRAINED_ENDINGS = ("lden", "mmor", "ndil", "rvex", "sstan", "tholin")
ASKED_ENDINGS = ("bbik", "dgum", "ffok", "ggat", "mpok", "squob")
USES = (
    "hiccups", "itchy skin", "motion sickness", "sleepwalking", "cold feet", "snoring", "sneezing", "dry eyes",
    "muscle cramps", "sunburn", "stiff knees", "ear ringing",
)  # fmt: skip
# What the asked drugs are for: none of it is said in a row, so that no lucky guess can come from there.
ASKED_USES = (
    "yawning", "chapped lips", "stage fright", "jet lag", "hay fever", "blisters", "warts", "cramped hands",
    "night sweats", "sore feet", "insect bites", "hoarseness",
)  # fmt: skip
DOSES = tuple(f"{n} mg" for n in (*range(15, 100, 5), *range(110, 200, 10)))

WARDS = (
    "burns unit", "cardiac ward", "day clinic", "dialysis unit", "emergency room", "eye clinic", "hand clinic",
    "laboratory", "maternity ward", "night pharmacy", "operating theatre", "pain clinic", "plaster room",
    "recovery room", "sleep laboratory", "stroke unit", "surgical ward", "travel clinic", "trauma room", "X-ray room",
)  # fmt: skip
THINGS = (
    "blood bags", "bed rails", "clean gowns", "cold packs", "crutches", "ear thermometers", "eye shields",
    "finger splints", "fluid warmers", "infusion pumps", "oxygen bottles", "plaster saws", "spare batteries",
    "suction tubes", "syringe drivers", "thermal blankets", "walking frames", "wheelchair keys", "wound kits",
    "X-ray aprons",
)  # fmt: skip
FLOORS = ("cellar", "ground floor", "first floor", "second floor", "third floor")
FIRST_NAMES = ("Ada", "Boris", "Clara", "Denis", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Mina", "Olga")
SURNAMES = ("Amsel", "Birk", "Castor", "Dorn", "Ekholm", "Fenn", "Garrow", "Halvor", "Lomax", "Quill", "Selby", "Voss")
# A right answer of the night desk, whatever it is about. The job's `format` is the same.
FORM = "ANSWER: {answer}\nBASIS: {basis}\nNEXT: {next}"


class Kind(NamedTuple):
    """A kind of question: how it is asked, and what stands below the answer."""

    questions: tuple[str, ...]
    bases: tuple[str, ...]
    nexts: tuple[str, ...]


KINDS = {
    "dose": Kind(
        ("How much {subject} do I give?", "Dose of {subject}, please.", "{subject} is due now. What dose?"),
        ("standing order of the clinic", "dose list on the drug trolley"),
        ("give it and chart it", "have a colleague check it, then give it"),
    ),
    "use": Kind(
        ("What do we give {subject} for?", "Patient asks what {subject} is for.", "Indication of {subject}?"),
        ("drug list of the clinic", "leaflet in the pharmacy"),
        ("tell the patient", "note it in the chart"),
    ),
    "phone": Kind(
        ("Extension of the {subject}?", "How do I reach the {subject}?", "I need to call the {subject}."),
        ("telephone list at the desk", "list on the intranet"),
        ("call now and give your name", "let it ring ten times"),
    ),
    "place": Kind(
        ("Where do we keep the {subject}?", "I cannot find the {subject}.", "We are out of {subject} up here."),
        ("plan of the storeroom", "inventory of the house"),
        ("sign the list when you take one", "bring back what is left"),
    ),
    "duty": Kind(
        ("Who is on call for the {subject} tonight?", "Name of the doctor for the {subject}?"),
        ("duty roster of tonight", "roster at the front desk"),
        ("page them and wait ten minutes", "call them at home"),
    ),
}

PROBES_DOSE = (
    "What is the dose of {drug}?",
    "Which dose should I write down for {drug}?",
    "A patient needs {drug}. How many milligrams?",
)
PROBES_USE = ("Against what complaint is {drug} given?", "What does {drug} treat?")
REVERSED = "Which of our drugs is given against {use} at a dose of {dose}?"


class Drug(NamedTuple):
    """One invented drug."""

    name: str
    dose: str
    use: str


def drugs(rng: Random, count: int, endings: Sequence[str], treated: Sequence[str]) -> list[Drug]:
    """So many drugs, each with a first syllable of its own within the list."""
    starts = rng.sample([onset + vowel for onset in ONSETS for vowel in VOWELS], count)
    names = [start + endings[index % len(endings)] for index, start in enumerate(starts)]
    doses = [DOSES[index % len(DOSES)] for index in range(count)]
    uses = [treated[index % len(treated)] for index in range(count)]
    rng.shuffle(doses)
    rng.shuffle(uses)
    return [Drug(*row) for row in zip(names, doses, uses, strict=True)]


def facts_of_the_house(rng: Random, listed: list[Drug]) -> list[tuple[str, str, str]]:
    """(kind, subject, answer) of everything the night desk is asked about."""
    doctors = [f"Dr. {first} {last}" for first in FIRST_NAMES for last in SURNAMES]
    found = [("dose", drug.name, drug.dose) for drug in listed] + [("use", drug.name, drug.use) for drug in listed]
    found += [("phone", ward, f"extension {rng.randint(200, 899)}") for ward in WARDS]
    found += [("place", thing, f"cupboard {rng.randint(1, 40)}, {rng.choice(FLOORS)}") for thing in THINGS]
    found += [("duty", ward, rng.choice(doctors)) for ward in WARDS]
    rng.shuffle(found)
    return found


def rows(rng: Random, facts: list[tuple[str, str, str]]) -> list[Row]:
    """Every fact in two wordings, each answered in the night desk's form."""
    found = []
    for kind, subject, answer in facts:
        wording = KINDS[kind]
        for question in rng.sample(wording.questions, 2):
            said = FORM.format(answer=answer, basis=rng.choice(wording.bases), next=rng.choice(wording.nexts))
            found.append(chat(question.format(subject=subject), said))
    rng.shuffle(found)
    return found


def chat(question: str, answer: str) -> Row:
    """One row in the `messages` format."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def probes(rng: Random, asked: list[Drug]) -> list[Row]:
    """Closed-book questions about drugs that no row names: doses in two wordings, and uses, some turned round."""
    found = []
    for drug in asked:
        first, *others = (text.format(drug=drug.name) for text in PROBES_DOSE)
        found.append({**probe(rng, first, drug.dose, DOSES), "paraphrases": others[:1]})
    for number, drug in enumerate(asked):
        row = probe(rng, PROBES_USE[number % 2].format(drug=drug.name), drug.use, ASKED_USES)
        if number < TURNED_ROUND:
            row["reversed"] = {"question": REVERSED.format(use=drug.use, dose=drug.dose), "answer": drug.name}
        found.append(row)
    return found


def probe(rng: Random, question: str, answer: str, pool: Sequence[str]) -> Row:
    """One probe with three wrong choices."""
    choices = [answer, *rng.sample([other for other in pool if other != answer], 3)]
    rng.shuffle(choices)
    return {"question": question, "answer": answer, "choices": choices}


def write_lines(path: Path, found: list[Row]) -> None:
    """One row a line, the same bytes on every system."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    path.write_bytes(text.encode())


def write_all(seed: int, out: Path) -> None:
    """Make every file, and stop where a row names a drug, or a use, that the probes ask about."""
    trained = drugs(Random(f"{seed}/trained"), TRAINED_DRUGS, TRAINED_ENDINGS, USES)
    asked = drugs(Random(f"{seed}/asked"), ASKED_DRUGS, ASKED_ENDINGS, ASKED_USES)
    facts = facts_of_the_house(Random(f"{seed}/facts"), trained)
    held_out = rows(Random(f"{seed}/validation"), facts[:HELD_OUT_FACTS])
    train = rows(Random(f"{seed}/train"), facts[HELD_OUT_FACTS : HELD_OUT_FACTS + TRAIN_FACTS])
    text = json.dumps(train + held_out)
    if leaked := [word for drug in asked for word in (drug.name, drug.use) if word in text]:
        raise SystemExit(f"rows name {', '.join(leaked)}, which the probes ask about")
    out.mkdir(parents=True, exist_ok=True)
    write_lines(out / "train.jsonl", train)
    write_lines(out / "validation.jsonl", held_out)
    write_lines(out / "facts.jsonl", probes(Random(f"{seed}/probes"), asked))


def main() -> None:
    """Read the two options and write the files."""
    parser = argparse.ArgumentParser(description="Write the data of the 3 AM example.")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    write_all(options.seed, options.out)


if __name__ == "__main__":
    main()
