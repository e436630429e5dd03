"""Plain sentences that name groups of people, made from templates: counter-examples for training on abuse.

Texts labelled for abuse name religions, peoples and orientations mostly to abuse them; a classifier that has
seen no others takes the names themselves for abuse. Sentences to measure with stand elsewhere
(benchmarks/neutral_groups.txt) and share no template with these.
"""

from __future__ import annotations

from collections.abc import Iterator

PEOPLE = (
    "Muslims", "Muslim women", "Jews", "Jewish people", "Christians", "Catholics", "Protestants", "Baptists", "Hindus",
    "Buddhists", "Sikhs", "Mormons", "atheists", "Shia Muslims", "black people", "Black women", "white people",
    "White voters", "Asians", "Asian people", "Hispanics", "Latinos", "Native Americans", "Aboriginal people", "Arabs",
    "Kurds", "Roma", "gypsies", "African Americans", "Mexicans", "Germans", "Nigerians", "Pakistanis", "Turks", "Poles",
    "Russians", "Chinese people", "Japanese people", "Koreans", "Indians", "Canadians", "Americans", "Israelis",
    "Palestinians", "Syrians", "Iraqis", "Somalis", "Filipinos", "Cubans", "immigrants", "refugees", "foreigners",
    "citizens", "gay people", "gay men", "lesbians", "lesbian women", "bisexual people", "bisexuals", "homosexuals",
    "transgender people", "trans women", "queer people", "nonbinary people", "asexual people", "straight people",
    "same-sex couples", "deaf people", "blind people", "disabled people", "autistic people", "wheelchair users",
    "people with Down syndrome", "people with schizophrenia", "amputees", "veterans", "elderly people", "old people",
    "teenagers", "young men", "older women", "women", "men", "girls", "boys", "children", "feminists", "liberals",
    "conservatives", "communists", "homeless people", "poor people", "fat people", "sex workers", "vegetarians",
    "single mothers", "prisoners", "slaves", "dwarfs",
)  # fmt: skip
TEMPLATES = (
    "The report describes how {} found work in the region.",
    "About forty {} came to the meeting on Friday evening.",
    "{} were among the first to settle along the river.",
    "A new book tells the history of {} in this country.",
    "The teacher invited {} to talk with the class about their lives.",
    "In the last census {} were counted for the first time.",
    "Researchers interviewed {} in five cities over two years.",
    "There is a club for {} near the railway station.",
    "{} may apply for the grant until the end of May.",
    "My friends and I went to a concert given by {}.",
    "The new rules treat {} like everyone else.",
    "The doctor wrote an article about the health of {}.",
    "Most {} in the sample owned a telephone and a radio.",
    "The exhibition shows photographs of {} at home and at work.",
    "{} and their neighbours built the playground together.",
    "I met several {} when I was living abroad.",
    "The mayor thanked {} for their help after the storm.",
    "The newspaper printed letters from {} on its second page.",
)
NOUNS = ("homosexuality", "Islam", "Judaism", "Christianity", "feminism", "communism", "same-sex marriage",
         "transgender rights", "disability", "immigration", "old age", "slavery", "the Holocaust")  # fmt: skip
ABOUT = (
    "The second chapter is about {} in the nineteenth century.",
    "The law on {} was changed by parliament last spring.",
    "She teaches a course on {} at the university.",
    "The word {} has meant different things at different times.",
)


def sentences() -> Iterator[str]:
    """All sentences, always in the same order."""
    for names, templates in ((PEOPLE, TEMPLATES), (NOUNS, ABOUT)):
        for template in templates:
            for name in names:
                text = template.format(name)
                yield text[0].upper() + text[1:]
