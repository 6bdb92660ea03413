"""A rule asks what its sentence answers, and keeps silent where it cannot be sure."""

import pytest

from finetune.asking import ask


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        (
            "Polignac's conjecture is a strengthening of that conjecture of his.",
            "What is Polignac's conjecture?",
            "",
        ),
        ("William Farel was a student of Lefevre from Paris.", "Who was William Farel?", ""),
        ("The name oxygen was coined in 1777 by him.", "When was the name oxygen coined?", "1777"),
        (
            "In 1186, Temüjin was elected khan of the Mongols.",
            "When was Temüjin elected khan of the Mongols?",
            "1186",
        ),
        ("The past record was held by John Elway.", "Who held the past record?", "John Elway"),
        (
            "Polonia's home venue is located at Konwiktorska Street, near the Old Town.",
            "Where is Polonia's home venue located?",
            "Konwiktorska Street",
        ),
        ("Cold sores are caused by a virus.", "What are cold sores caused by?", ""),
        (
            "A steam turbine consists of one or more rotors.",
            "What does a steam turbine consist of?",
            "",
        ),
        (
            "The 2010 drought had three epicenters where vegetation died off.",
            "How many epicenters did the 2010 drought have?",
            "three",
        ),
        (
            "Every nurse of the house has 27 days of annual leave.",
            "How many days of annual leave does every nurse of the house have?",
            "27",
        ),
        (
            "The city of Graz has a population of 291,134.",
            "What is the population of the city of Graz?",
            "291,134",
        ),
        (
            "Contact lenses should be avoided because they can damage the cornea.",
            "Why should contact lenses be avoided?",
            "",
        ),
        (
            "An Authorised Person must request the withdrawal within seven days of it.",
            "Within what time must an Authorised Person request the withdrawal?",
            "seven days",
        ),
        (
            "The entire conflict is known as the Seven Years' War.",
            "What is the entire conflict known as?",
            "the Seven Years' War",
        ),
    ],
)
def test_a_sentence_is_asked_for_what_it_says(sentence: str, question: str, answer: str) -> None:
    asked = {a.question: a.answer for a in ask(sentence)}
    assert asked[question] == answer


@pytest.mark.parametrize(
    "sentence",
    [
        "It was founded in 1987 by the town.",  # whom it means, another sentence says
        "This condition is caused by a virus.",
        "Symptoms include fever and thirst.",
        "However, the Office was founded in 1987.",
        "Lincoln believed Chase was an able jurist of the court.",
        "Contest with CinyrasCinyras was a ruler of Cyprus in old times.",
        "Prometheus Prometheus was the titan who was punished by Zeus.",
        "A town was established there in 1822.",
        "Cuffy Meigs is the Director of Unification for the railroad.",  # who, or what?
        "When was the Office founded?",
        "a, b and c",
        "",
    ],
)
def test_a_sentence_in_doubt_is_not_asked(sentence: str) -> None:
    assert list(ask(sentence)) == []
