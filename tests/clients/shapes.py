"""What several clients are asked for, in the forms that all of them take."""

from pydantic import BaseModel


class Forecast(BaseModel):
    """A forecast."""

    city: str
    days: int


def says(text):
    return [{"role": "user", "content": text}]
