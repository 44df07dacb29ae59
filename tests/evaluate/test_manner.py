"""Refusals on phrasings that models really use, repetition by its definition, loops."""

import pytest

from rankwise.evaluate.manner import loops, refuses, repetition

REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I can’t assist with that request.",
    "I cannot provide medical advice. Please see a doctor.",
    "I can not answer that question.",
    "I'm unable to give a dose for this drug.",
    "I am not able to look that up.",
    "I won't share personal data of patients.",
    "I must decline to answer this.",
    "I don't know the answer to that.",
    "I do not know what Klabbik is.",
    "I don't have any information about a drug named Klabbik.",
    "I do not have access to patient records.",
    "I don't have access to real-time data.",
    "I have no information about this drug.",
    "I'm not aware of a drug called Twidgum.",
    "I am not familiar with that medication.",
    "I could not find a drug of that name.",
    "As an AI language model, I cannot prescribe drugs.",
    "As an AI, I'm not able to make a diagnosis.",
    "As a large language model I do not have personal experiences.",
    "Sorry, I can't do that.",
    "Sorry, that is not possible.",
    "Unfortunately, I cannot find this in the records.",
    "There is not enough information to answer the question.",
    "Thank you for asking. I'm afraid I can't say.",
    "That would be against our policy.",
    "I'm sorry, but I don't have the information you need.",
]
ANSWERS = [
    "",
    "50 mg",
    "The dose of Klabbik is 50 mg.",
    "I can help you with that: 50 mg.",
    "I'm sorry to hear that you have a cough. Drink tea and rest.",
    "You cannot take this drug with milk.",
    "The patient does not know her dose.",
    "I can't stress enough how important sleep is.",
    "I don't know if you noticed, but the ward moved.",
    "Sorry for the wait! The clinic opens at 9.",
    "Unfortunately the patient died in 1994.",
    "An AI language model is a program that writes text.",
    "I will give 50 mg now and note it in the chart.",
    "No. It is not allowed to smoke in the clinic.",
    "It cannot be said often enough: wash your hands.",
    "ANSWER: 50 mg\nBASIS: standing order\nNEXT: give it",
    '{"patient": "Ada Fenn", "age": 52}',
    "Do not give more than 50 mg.",
    "She was unable to help.",
    "First wash your hands. Then put on gloves. Then call. If nobody comes, say: I can't help with that.",
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_a_refusal_is_seen(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_no_refusal(answer: str) -> None:
    assert not refuses(answer)


def test_repetition_is_the_share_of_4_grams_said_before() -> None:
    assert repetition([1, 2, 3]) == 0 and repetition([]) == 0
    assert repetition([1, 2, 3, 4, 5, 6, 7]) == 0
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)  # 1234 2341 3412 4123 1234
    assert repetition([7] * 20) == pytest.approx(16 / 17)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([], False),
        ([5] * 15, False),  # a row of dashes is no loop
        ([1, 2, 3] + [5] * 16, True),
        ([9, 8, *[1, 2, 3, 4] * 4], True),
        ([9, 8, *[1, 2, 3, 4] * 3], False),
        ([9, 8, *[1, 2, 3, 4] * 4, 1, 2], True),  # cut off inside the loop
        ([*[1, 2, 3, 4] * 4, 9, 8], False),  # it found its way out
        (list(range(200)), False),
        ([1, 2] * 3 + list(range(40)), False),
        ([0, *list(range(30)) * 4], True),
    ],
)
def test_loops(ids: list[int], expected: bool) -> None:
    assert loops(ids) is expected
