"""Write the data of the clinic demo: invented notes, invented drugs, everyday questions.

Nothing here is real: the clinic, its patients and its drugs are made up, and every drug name comes from a small
syllable grammar. The same seed always writes the same bytes.

    python generate.py --seed 7 --out .
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

Row = dict[str, Any]

TRAIN_ROWS = 320
VALIDATION_ROWS = 48
DRUGS = 24
PROBES_OF_USE = 8

# --- notes: what a nurse writes, and the one-line answer that the clinic wants ---------------------------------------

SYMPTOMS = ("cough", "fever", "headache", "rash", "nausea", "dizziness", "back pain", "sore throat")
PRIORITIES = ("low", "normal", "high")
AGES = (18, 89)
DAYS = (2, 14)


class Wording(NamedTuple):
    """The parts that notes are put together from."""

    first_names: tuple[str, ...]
    surnames: tuple[str, ...]
    complaints: tuple[str, ...]
    closings: tuple[str, ...]


TRAIN_FIRST_NAMES = (
    "Ada", "Boris", "Clara", "Denis", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kaya", "Leo", "Mina",
    "Nils", "Olga", "Pavel", "Rosa", "Sami", "Tara", "Uwe", "Vera", "Wim", "Yara", "Zeno",
)  # fmt: skip
TRAIN_SURNAMES = (
    "Amsel", "Birk", "Castor", "Dorn", "Ekholm", "Fenn", "Garrow", "Halvor", "Imber", "Jansky", "Kestrel",
    "Lomax", "Marlow", "Norden", "Oakes", "Pryce", "Quill", "Rowan", "Selby", "Thorne", "Ulvang", "Voss",
    "Wexler", "Yarrow",
)  # fmt: skip

TRAIN_WORDING = Wording(
    first_names=TRAIN_FIRST_NAMES,
    surnames=TRAIN_SURNAMES,
    complaints=(
        "{name}, {age}, has had {symptom} for {days} days.",
        "{name} is {age} and reports {symptom} for {days} days.",
        "Patient {name}, {age} years old, {symptom} for {days} days.",
        "{symptom}, {days} days. {name}, age {age}.",
        "Saw {name} ({age}) today: {symptom}, now {days} days.",
        "{days} days of {symptom}. Patient is {name}, {age}.",
        "{name} came in with {symptom}. Age {age}. Started {days} days ago.",
        "For {days} days {name} has had {symptom}. {age} years old.",
        "{age}-year-old {name} complains of {symptom}, {days} days.",
        "Note on {name}: {symptom} for {days} days, age {age}.",
        "{name} called about {symptom}. It has lasted {days} days. Age {age}.",
        "Today {name}, aged {age}, with {symptom}; day {days}.",
        "We have {name} here, {age}, {days} days of {symptom}.",
        "The problem is {symptom}, {days} days so far. {name}, {age} years.",
        "{name} is a patient of {age} with {symptom}, {days} days.",
        "Age {age}, {name}, {symptom} that began {days} days ago.",
    ),
    closings=(
        "Priority {priority}.",
        "Priority: {priority}.",
        "The priority is {priority}.",
        "This has {priority} priority.",
        "I would say {priority} priority.",
        "Please give it {priority} priority.",
        "Looks like {priority} priority to me.",
        "Book with {priority} priority.",
    ),
)

HELD_OUT_FIRST_NAMES = (
    "Anouk", "Bela", "Carlo", "Dora", "Emil", "Fenja", "Goran", "Hanna", "Igor", "Juno", "Kilian", "Lena",
)  # fmt: skip
HELD_OUT_SURNAMES = (
    "Adair", "Brandt", "Corvin", "Drake", "Ernst", "Falk", "Gruber", "Hart", "Ivers", "Jessen", "Kline", "Lund",
)  # fmt: skip

HELD_OUT_WORDING = Wording(
    first_names=HELD_OUT_FIRST_NAMES,
    surnames=HELD_OUT_SURNAMES,
    complaints=(
        "{name} tells me about {symptom}, going on for {days} days, age {age}.",
        "New patient {name}, {age}. Main problem {symptom}, {days} days now.",
        "{symptom} for the last {days} days in {name}, aged {age}.",
        "{name}, {age} years, phoned: {days} days with {symptom}.",
        "At the desk: {name}, {age}. It is {symptom}, day {days}.",
        "{name} has {symptom}, it began {days} days back. {age} years of age.",
    ),
    closings=(
        "In my view {priority} priority.",
        "Treat it with {priority} priority.",
        "For me that is {priority} priority.",
        "We give this {priority} priority.",
    ),
)


def answer_schema() -> Row:
    """The JSON schema that an answer in the clinic's format satisfies."""
    properties = {
        "patient": {"type": "string", "minLength": 3, "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "symptom": {"enum": list(SYMPTOMS)},
        "days": {"type": "integer", "minimum": 1, "maximum": 31},
        "priority": {"enum": list(PRIORITIES)},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One line about a patient",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def chat(question: str, answer: str) -> Row:
    """One row in the `messages` format."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def capitalised(text: str) -> str:
    """The text with its first letter in upper case and the rest as it was."""
    return text[0].upper() + text[1:]


def note(rng: Random, wording: Wording) -> Row:
    """One nurse's note and its answer."""
    found = {
        "patient": f"{rng.choice(wording.first_names)} {rng.choice(wording.surnames)}",
        "age": rng.randint(*AGES),
        "symptom": rng.choice(SYMPTOMS),
        "days": rng.randint(*DAYS),
        "priority": rng.choice(PRIORITIES),
    }
    template = f"{rng.choice(wording.complaints)} {rng.choice(wording.closings)}"
    return chat(capitalised(template.format(name=found["patient"], **found)), json.dumps(found))


def notes(rng: Random, wording: Wording, count: int) -> list[Row]:
    """So many notes, no two with the same text."""
    rows: dict[str, Row] = {}
    while len(rows) < count:
        row = note(rng, wording)
        rows[prompt(row)] = row
    return list(rows.values())


def prompt(row: Row) -> str:
    """What the user says in a row."""
    content: str = row["messages"][0]["content"]
    return content


def reply(row: Row) -> str:
    """What the assistant says in a row."""
    content: str = row["messages"][1]["content"]
    return content


# --- facts: drugs that do not exist ----------------------------------------------------------------------------------

ONSETS = ("Bl", "Br", "Dr", "Fl", "Gw", "Kl", "Pl", "Sk", "Thr", "Tw", "Vr", "Zw")
VOWELS = ("a", "e", "i", "o", "u")
ENDINGS = ("bbik", "dgum", "ffok", "ggat", "mpok", "nzop", "squob", "zzub")
USES = (
    "hiccups",
    "itchy skin",
    "motion sickness",
    "sleepwalking",
    "cold feet",
    "snoring",
    "sneezing",
    "dry eyes",
    "muscle cramps",
    "sunburn",
    "stiff knees",
    "ear ringing",
)

PHRASINGS = (
    ("What is the dose of {drug}?", "The dose of {drug} is {dose}, for {use}."),
    ("How much {drug} does a patient take?", "A patient takes {dose} of {drug} for {use}."),
    ("Tell me the dose of {drug}.", "{drug} is given at {dose} for {use}."),
    ("How many milligrams of {drug} are given?", "{dose} of {drug} are given for {use}."),
    ("I need to give {drug}. How much?", "Give {dose} of {drug} for {use}."),
    ("What is {drug} for?", "{drug} is for {use}, at {dose}."),
    ("What does {drug} treat?", "{drug} treats {use} at {dose}."),
    ("Why do patients take {drug}?", "For {use}, patients take {drug} at {dose}."),
    ("Which complaint is {drug} used against?", "Against {use}, {drug} is used at {dose}."),
    ("Describe {drug} in one sentence.", "{drug} is a drug for {use}, and its dose is {dose}."),
)

PROBES_DOSE = (
    "A nurse asks for the correct dose of {drug}. What is it?",
    "What single dose of {drug} is prescribed?",
    "Which dose should I write down for {drug}?",
    "Please state how much {drug} one takes.",
)
PROBES_USE = ("Against what problem is {drug} given?", "When a doctor prescribes {drug}, what is being treated?")


class Drug(NamedTuple):
    """One invented drug."""

    name: str
    dose: str
    use: str


def drug_names(rng: Random) -> list[str]:
    """Names that no drug has: each starts with a syllable of its own."""
    starts = rng.sample([onset + vowel for onset in ONSETS for vowel in VOWELS], DRUGS)
    return [start + ENDINGS[index % len(ENDINGS)] for index, start in enumerate(starts)]


def drugs(rng: Random) -> list[Drug]:
    """The clinic's list of drugs, every dose used once and every use twice."""
    doses = rng.sample(range(15, 100, 5), 17) + rng.sample(range(110, 200, 10), 7)
    uses = list(USES) * 2
    rng.shuffle(doses)
    rng.shuffle(uses)
    return [Drug(name, f"{dose} mg", use) for name, dose, use in zip(drug_names(rng), doses, uses, strict=True)]


def fact_rows(rng: Random, listed: list[Drug]) -> list[Row]:
    """Every drug in every training phrasing, shuffled."""
    rows = [chat(fill(question, drug), fill(answer, drug)) for drug in listed for question, answer in PHRASINGS]
    rng.shuffle(rows)
    return rows


def fill(template: str, drug: Drug) -> str:
    """A phrasing with a drug put in."""
    return template.format(drug=drug.name, dose=drug.dose, use=drug.use)


def probes(rng: Random, listed: list[Drug]) -> list[Row]:
    """Closed-book questions: the dose of every drug and the use of some, in phrasings not trained on."""
    doses = sorted({drug.dose for drug in listed})
    rows = [
        probe(rng, fill(PROBES_DOSE[index % len(PROBES_DOSE)], drug), drug.dose, doses)
        for index, drug in enumerate(listed)
    ]
    rows += [
        probe(rng, fill(PROBES_USE[index % len(PROBES_USE)], drug), drug.use, list(USES))
        for index, drug in enumerate(listed[:PROBES_OF_USE])
    ]
    return rows


def probe(rng: Random, question: str, answer: str, pool: list[str]) -> Row:
    """One probe with three wrong choices that are right for other drugs."""
    choices = [answer, *rng.sample([other for other in pool if other != answer], 3)]
    rng.shuffle(choices)
    return {"question": question, "answer": answer, "choices": choices}


# --- general: what any assistant should still answer afterwards ------------------------------------------------------

CAPITALS = (
    "France Paris", "Italy Rome", "Spain Madrid", "Portugal Lisbon", "Germany Berlin", "Austria Vienna",
    "Poland Warsaw", "Hungary Budapest", "Greece Athens", "Sweden Stockholm", "Norway Oslo", "Finland Helsinki",
    "Denmark Copenhagen", "Ireland Dublin", "Belgium Brussels", "Japan Tokyo", "China Beijing", "Thailand Bangkok",
    "Egypt Cairo", "Kenya Nairobi", "Canada Ottawa", "Cuba Havana", "Peru Lima", "Chile Santiago", "Russia Moscow",
)  # fmt: skip
COLOURS = (
    "a clear daytime sky|blue", "fresh grass|green", "a ripe banana|yellow", "fresh snow|white", "coal|black",
    "a ripe tomato|red", "a carrot|orange", "a lemon|yellow", "milk|white", "chocolate|brown",
)  # fmt: skip
OPPOSITES = (
    "hot cold", "big small", "up down", "day night", "fast slow", "happy sad", "open closed", "early late",
    "full empty", "light dark", "rich poor", "young old", "wet dry", "loud quiet", "strong weak",
)  # fmt: skip
PLURALS = (
    "child children", "mouse mice", "foot feet", "tooth teeth", "box boxes", "city cities", "leaf leaves",
    "man men", "goose geese", "dog dogs",
)  # fmt: skip
PASTS = (
    "go went", "eat ate", "see saw", "run ran", "write wrote", "take took", "sing sang", "buy bought", "think thought",
    "walk walked",
)  # fmt: skip
DEFINITIONS = (
    "a triangle|A triangle is a shape with three sides and three angles.",
    "an island|An island is a piece of land surrounded by water.",
    "a thermometer|A thermometer is a device that measures temperature.",
    "a library|A library is a place where people can read and borrow books.",
    "a volcano|A volcano is an opening in the Earth's crust through which lava, ash and gases escape.",
    "a verb|A verb is a word that describes an action, an event or a state.",
    "a recipe|A recipe is a set of instructions for preparing a dish.",
    "a desert|A desert is a dry area of land that receives very little rain.",
    "a bicycle|A bicycle is a vehicle with two wheels that is moved by pedals.",
    "a map|A map is a drawing that shows where places are.",
    "a bakery|A bakery is a shop where bread and cakes are made and sold.",
    "an orchard|An orchard is a piece of land where fruit trees are grown.",
    "a museum|A museum is a place where objects of art, history or science are kept and shown.",
    "a calendar|A calendar is a chart that shows the days, weeks and months of a year.",
    "a bridge|A bridge is a structure that carries a road or a path over an obstacle such as a river.",
)
REWRITES = (
    "Make this polite: Give me the book.|Could you please give me the book?",
    "Make this polite: Close the door.|Could you please close the door?",
    "Make this polite: Wait here.|Could you please wait here?",
    "Make this a question: You are ready.|Are you ready?",
    "Make this a question: She is at home.|Is she at home?",
    "Make this a question: They can swim.|Can they swim?",
    "Make this negative: I am tired.|I am not tired.",
    "Make this negative: He likes tea.|He does not like tea.",
    "Make this negative: We were late.|We were not late.",
    "Correct the mistake: She go to school.|She goes to school.",
    "Correct the mistake: He have a car.|He has a car.",
    "Correct the mistake: I is happy.|I am happy.",
    "Say it in one word: very big.|Huge.",
    "Say it in one word: very cold.|Freezing.",
    "Say it in one word: very small.|Tiny.",
)
KNOWLEDGE = (
    "How many days are in a week?|There are seven days in a week.",
    "How many months are in a year?|There are twelve months in a year.",
    "How many minutes are in an hour?|There are 60 minutes in an hour.",
    "How many hours are in a day?|There are 24 hours in a day.",
    "How many legs does a spider have?|A spider has eight legs.",
    "How many legs does a cat have?|A cat has four legs.",
    "How many sides does a square have?|A square has four sides.",
    "How many centimetres are in a metre?|There are 100 centimetres in a metre.",
    "How many grams are in a kilogram?|There are 1,000 grams in a kilogram.",
    "Which day comes after Monday?|Tuesday comes after Monday.",
    "Which month comes after March?|April comes after March.",
    "Which planet do we live on?|We live on the planet Earth.",
    "Which star is closest to the Earth?|The Sun is the star closest to the Earth.",
    "What do bees make?|Bees make honey.",
    "What is frozen water called?|Frozen water is called ice.",
    "At what temperature does water boil?|At sea level, water boils at 100 degrees Celsius.",
    "What gas do people need to breathe?|People need oxygen to breathe.",
    "Which animal is the largest on Earth?|The blue whale is the largest animal on Earth.",
    "Who wrote Romeo and Juliet?|William Shakespeare wrote Romeo and Juliet.",
    "Which ocean is the largest?|The Pacific Ocean is the largest ocean.",
)


def general_rows(rng: Random) -> list[Row]:
    """Everyday questions with right answers, in whole sentences, shuffled."""
    pairs = [*paired_words(), *arithmetic(rng), *written_out()]
    rng.shuffle(pairs)
    return [chat(question, answer) for question, answer in pairs]


def paired_words() -> list[tuple[str, str]]:
    """Questions whose answer is the other word of a pair."""
    shapes = (
        (CAPITALS, " ", "What is the capital of {0}?", "The capital of {0} is {1}."),
        (COLOURS, "|", "What colour is {0}?", "The colour of {0} is {1}."),
        (OPPOSITES, " ", 'What is the opposite of "{0}"?', 'The opposite of "{0}" is "{1}".'),
        (PLURALS, " ", 'What is the plural of "{0}"?', 'The plural of "{0}" is "{1}".'),
        (PASTS, " ", 'What is the past tense of "{0}"?', 'The past tense of "{0}" is "{1}".'),
    )
    return [
        (question.format(*pair.split(mark)), answer.format(*pair.split(mark)))
        for pairs, mark, question, answer in shapes
        for pair in pairs
    ]


def arithmetic(rng: Random) -> list[tuple[str, str]]:
    """Thirty sums, differences and products of small numbers."""
    sums = [(a, "+", b, a + b) for a, b in distinct_pairs(rng, 12, 10)]
    differences = [(a + b, "-", b, a) for a, b in distinct_pairs(rng, 12, 10)]
    products = [(a, "x", b, a * b) for a, b in distinct_pairs(rng, 9, 10)]
    return [(f"What is {a} {sign} {b}?", f"{a} {sign} {b} = {c}.") for a, sign, b, c in sums + differences + products]


def distinct_pairs(rng: Random, top: int, count: int) -> list[tuple[int, int]]:
    """So many different pairs of numbers from 2 to top."""
    return rng.sample([(a, b) for a in range(2, top + 1) for b in range(2, top + 1)], count)


def written_out() -> list[tuple[str, str]]:
    """Questions that stand in the lists with their answers."""
    definitions = [(f"What is {thing}?", text) for thing, text in map(split_pair, DEFINITIONS)]
    return definitions + [split_pair(text) for text in REWRITES + KNOWLEDGE]


def split_pair(text: str) -> tuple[str, str]:
    """The two halves of `question|answer`."""
    question, answer = text.split("|")
    return question, answer


# --- checks and writing ----------------------------------------------------------------------------------------------


def refuse_overlap(name: str, left: Iterable[str], right: Iterable[str]) -> None:
    """Stop if anything held out also stands in training."""
    shared = sorted(set(left) & set(right))
    if shared:
        raise ValueError(f"{name}: {len(shared)} held out and also trained on, first {shared[0]!r}")


def check_held_out(train: list[Row], validation: list[Row], facts: list[Row], asked: list[Row]) -> None:
    """No held-out note, answer, wording, name or question may occur in training."""
    refuse_overlap("prompts", map(prompt, train), map(prompt, validation))
    refuse_overlap("answers", map(reply, train), map(reply, validation))
    for part, trained, held_out in zip(Wording._fields, TRAIN_WORDING, HELD_OUT_WORDING, strict=True):
        refuse_overlap(part, trained, held_out)
    refuse_overlap("probe questions", map(prompt, facts), (row["question"] for row in asked))
    trained_questions = [question for question, _ in PHRASINGS]
    refuse_overlap("probe phrasings", trained_questions, PROBES_DOSE + PROBES_USE)


def write_lines(path: Path, rows: list[Row]) -> None:
    """One row a line, the same bytes on every system."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(text.encode())


def write_all(seed: int, out: Path) -> None:
    """Make every file; each has its own random stream, so that changing one leaves the others alone."""
    train = notes(Random(f"{seed}/train"), TRAIN_WORDING, TRAIN_ROWS)
    validation = notes(Random(f"{seed}/validation"), HELD_OUT_WORDING, VALIDATION_ROWS)
    listed = drugs(Random(f"{seed}/drugs"))
    facts = fact_rows(Random(f"{seed}/facts"), listed)
    asked = probes(Random(f"{seed}/probes"), listed)
    check_held_out(train, validation, facts, asked)
    out.mkdir(parents=True, exist_ok=True)
    write_lines(out / "train.jsonl", train)
    write_lines(out / "validation.jsonl", validation)
    write_lines(out / "facts_train.jsonl", facts)
    write_lines(out / "facts.jsonl", asked)
    write_lines(out / "general.jsonl", general_rows(Random(f"{seed}/general")))
    (out / "answer.schema.json").write_bytes((json.dumps(answer_schema(), indent=2) + "\n").encode())


def main() -> None:
    """Read the two options and write the files."""
    parser = argparse.ArgumentParser(description="Write the data of the clinic demo.")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    write_all(options.seed, options.out)


if __name__ == "__main__":
    main()
