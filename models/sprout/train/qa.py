"""Questions about the project and small talk, in many spellings."""

from chat import Example
from facts import (
    PREFIXES,
    QUESTIONS,
    SMALL_TALK,
    SUFFIXES,
    TERM_FORMS,
    TERMS,
    UNKNOWN,
    UNKNOWN_FORMS,
)
from words import ANIMALS, CITIES, COLOURS, COMMON, FOODS, JOBS, LETTERS, NAMES

ANSWERS = list(QUESTIONS.items())
TERM_LIST = list(TERMS.items())
TALK = list(SMALL_TALK.items())


def mistype(rng, text):
    """One slip of the finger inside the text: a letter lost, doubled, swapped or wrong."""
    at = rng.randrange(1, max(2, len(text) - 1))
    slip = rng.randrange(4)
    if slip == 0:
        return text[:at] + text[at + 1 :]
    if slip == 1:
        return text[:at] + text[at : at + 1] + text[at:]
    if slip == 2:
        return text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]
    return text[:at] + rng.choice(LETTERS) + text[at + 1 :]


def dress(rng, question, mark="?"):
    """The question as somebody might type it."""
    if rng.random() < 0.12 and len(question) > 9:
        question = mistype(rng, question)
    style = rng.random()
    if style < 0.55:
        question = question[:1].upper() + question[1:]
    elif style < 0.6:
        question = question.upper()
    elif style < 0.65:
        question = question.lower()
    question += mark if rng.random() < 0.75 else rng.choice(["", "", ".", "!", mark + mark])
    return rng.choice(PREFIXES) + question + rng.choice(SUFFIXES)


def unknown(rng):
    form = rng.choice(UNKNOWN_FORMS)
    return UNKNOWN, form.format(
        city=rng.choice(CITIES),
        thing=rng.choice(COMMON),
        name=rng.choice(NAMES),
        colour=rng.choice(COLOURS),
        animal=rng.choice(ANIMALS),
        food=rng.choice(FOODS),
        job=rng.choice(JOBS),
    )


def pick(rng):
    """An answer and a plain lower-case question for it."""
    draw = rng.random()
    if draw < 0.46:
        term, (others, definition) = rng.choice(TERM_LIST)
        name = rng.choice([term, term, *others])
        return definition, rng.choice(TERM_FORMS).format(t=name)
    if draw < 0.9:
        answer, questions = rng.choice(ANSWERS)
        return answer, rng.choice(questions)
    return unknown(rng)


def make(rng):
    if rng.random() < 0.08:
        answer, questions = rng.choice(TALK)
        text = rng.choice(questions)
        text = rng.choice([text, text.capitalize(), text.upper()]) + rng.choice(["", "!", ".", "?"])
    else:
        answer, question = pick(rng)
        text = dress(rng, question)
    messages = [{"role": "user", "content": text}]
    if rng.random() < 0.12:
        earlier, question = pick(rng)
        messages = [
            {"role": "user", "content": dress(rng, question)},
            {"role": "assistant", "content": earlier},
            *messages,
        ]
    return Example("qa", messages, answer, {"text": [answer]})
