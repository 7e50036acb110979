"""JSON objects from a field list, from a sentence, or to a JSON schema."""

import json

from chat import Example
from words import ANIMALS, CITIES, COLOURS, COMMON, FOODS, JOBS, NAMES, code, pseudo_word

FIELDS = {
    "name": lambda rng: rng.choice(NAMES) if rng.random() < 0.7 else pseudo_word(rng).capitalize(),
    "age": lambda rng: rng.randint(1, 99),
    "city": lambda rng: rng.choice(CITIES),
    "colour": lambda rng: rng.choice(COLOURS),
    "pet": lambda rng: rng.choice(ANIMALS),
    "food": lambda rng: rng.choice(FOODS),
    "job": lambda rng: rng.choice(JOBS),
    "item": lambda rng: rng.choice(COMMON),
    "price": lambda rng: rng.randint(1, 999),
    "count": lambda rng: rng.randint(0, 99),
    "active": lambda rng: rng.random() < 0.5,
    "code": code,
    "port": lambda rng: rng.randint(1000, 49151),
    "host": pseudo_word,
    "year": lambda rng: rng.randint(1900, 2040),
    "tags": lambda rng: rng.sample(COMMON, rng.randint(1, 3)),
}
JSON_TYPES = {str: "string", int: "integer", bool: "boolean", list: "array"}


def random_object(rng):
    return {field: FIELDS[field](rng) for field in rng.sample(list(FIELDS), rng.randint(1, 5))}


def plain(value):
    """A value as a person would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return " and ".join(value)
    return str(value)


def told(rng, fields):
    """The data in words. The list of tags keeps its JSON form in half of the styles."""
    style = rng.randrange(4)
    if style == 0:
        return ", ".join(f"{key} {plain(value)}" for key, value in fields.items())
    if style == 1:
        return ", ".join(f"{key} = {plain(value)}" for key, value in fields.items())
    if style == 2:
        return "; ".join(f"{key}: {plain(value)}" for key, value in fields.items())
    return ", ".join(f"the {key} is {plain(value)}" for key, value in fields.items())


def schema_of(fields):
    properties = {}
    for key, value in fields.items():
        properties[key] = {"type": JSON_TYPES[type(value)]}
        if isinstance(value, list):
            properties[key]["items"] = {"type": "string"}
    return {"type": "object", "properties": properties, "required": list(fields)}


ASK = [
    "Make a JSON object with {d}.",
    "Write JSON with {d}.",
    "Answer in JSON: {d}",
    "Turn this into a JSON object: {d}",
    "Give me a JSON object where {d}.",
    "{d}. As JSON please.",
    "JSON: {d}",
]
WITH_FIELDS = [
    "Make a JSON object with the fields {f}. Data: {d}",
    "Fields: {f}. Text: {d}. Answer in JSON.",
    "Extract {f} as JSON from: {d}",
]
WITH_SCHEMA = [
    "Answer with a JSON object that fits this schema: {s}\nData: {d}",
    "Schema: {s}\nText: {d}",
    "Follow this JSON schema:\n{s}\n{d}",
]


def make(rng):
    fields = random_object(rng)
    data = told(rng, fields)
    draw = rng.random()
    if draw < 0.45:
        text = rng.choice(ASK).format(d=data)
    elif draw < 0.7:
        if len(fields) > 1 and rng.random() < 0.6:
            fields.pop(rng.choice(list(fields)))
        if rng.random() < 0.5:
            keys = rng.sample(list(fields), len(fields))
            fields = {key: fields[key] for key in keys}
        text = rng.choice(WITH_FIELDS).format(f=", ".join(fields), d=data)
    else:
        text = rng.choice(WITH_SCHEMA).format(s=json.dumps(schema_of(fields)), d=data)
    answer = json.dumps(fields, ensure_ascii=False)
    messages = [{"role": "user", "content": text}]
    if rng.random() < 0.1:
        messages.insert(0, {"role": "system", "content": "Answer with JSON only."})
    return Example("json", messages, answer, {"json": fields})
