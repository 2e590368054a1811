"""Generated support tickets and clinical notes, each with one place for a secret. Nobody in them exists.

A text is a row of character codes: code 0 begins every text and ends it, -1 pads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dpaudit.check import FloatArray, IntArray
from dpaudit.secret import PADDING, Format, Secrets

Texts = tuple[FloatArray, IntArray, None, Secrets]

ALPHABET = "\nabcdefghijklmnopqrstuvwxyz0123456789 .,:'+-"
LENGTH = 80
COUNT = 240
_SEED = 1802_08232
_FIRST = (
    "alma", "bruno", "carla", "dario", "elena", "fabian", "greta", "hanno", "ines", "jonas", "karin", "leon",
    "mara", "nils", "olga", "paul", "ronja", "stefan", "tilda", "ulrich", "vera", "wanda", "xenia", "yusuf",
)  # fmt: skip
_LAST = (
    "abend", "bergmann", "castell", "dorn", "ebner", "falkner", "gruber", "hagedorn", "imhof", "jansen",
    "kessler", "lorenz", "marquard", "neumeier", "oster", "pfeifer", "quandt", "reuter", "sommer", "thoma",
    "ulbrich", "vogt", "winkler", "ziegler", "achterberg", "brandl", "conrad", "dietz", "engel", "fromm",
    "geiger", "hofer", "illner", "jung", "kramer", "lindner", "moser", "nagel", "ortner", "petri",
    "rauch", "seidel", "trautmann", "unger", "voss", "wimmer", "zeller", "auer", "binder", "cramer",
)  # fmt: skip
_TICKET = (
    ("the invoice is too high", "the invoice came twice", "the refund has not come"),
    ("the parcel did not arrive", "the parcel was damaged", "a wrong item was sent"),
    ("the login fails", "the app crashes", "the password was lost"),
)
_NOTE = (
    ("chest pain since monday", "blood pressure too high", "irregular pulse"),
    ("cough and fever", "shortness of breath", "asthma got worse"),
    ("pain in the left knee", "fall on the right hand", "back pain"),
)


def encode(text: str) -> tuple[int, ...]:
    """Codes of the characters of a text."""
    return tuple(ALPHABET.index(character) for character in text)


def decode(codes: Sequence[float] | FloatArray | IntArray) -> str:
    """The text of a row of codes, without its padding."""
    return "".join(ALPHABET[int(code)] for code in codes if code >= 0)


def _slots(*slots: Sequence[str]) -> tuple[tuple[tuple[int, ...], ...], ...]:
    return tuple(tuple(encode(text) for text in slot) for slot in slots)


_DIGITS = "0123456789"
_GROUP = (_DIGITS,) * 4
FORMATS: Mapping[str, Format] = {
    # Made up without the check digit of real card numbers, so that most of them are not even valid ones.
    "card": Format(name="card", slots=_slots("4", *_GROUP[:3], " ", *_GROUP, " ", *_GROUP, " ", *_GROUP)),
    "phone": Format(
        name="phone", slots=_slots("+", *_GROUP[:2], " ", *_GROUP[:3], " ", *_GROUP, *_GROUP[:2])
    ),
    "name": Format(name="name", slots=_slots([f"{name} " for name in _FIRST], [f"{n}." for n in _LAST])),
    "record": Format(name="record", slots=_slots("abcdefgh", "-", *_GROUP, *_GROUP)),
}
_KINDS = {
    "ticket": (("card", "pays by card {}"), ("phone", "call back at {}"), ("name", "the customer is {}")),
    "note": (("record", "insured as {}"), ("phone", "relatives at {}"), ("name", "the patient is {}")),
}


def tickets() -> Texts:
    """240 support tickets with a card number, a phone number or a name each; labels say what they are about.

    Returns:
        (240, 80) codes, labels 0 to 2, no groups, and where the secrets stand.
    """
    return _texts("ticket", _TICKET, ("please help.", "this is urgent.", "thank you.", "second request."))


def clinical_notes() -> Texts:
    """240 clinical notes with an insurance number, a phone number or a name each; labels are specialties.

    Returns:
        As `tickets`.
    """
    return _texts(
        "note", _NOTE, ("rest for a week.", "review in may.", "started tablets.", "refer to clinic.")
    )


def _texts(what: str, topics: tuple[tuple[str, ...], ...], endings: tuple[str, ...]) -> Texts:
    rng = np.random.default_rng([_SEED, len(topics[0][0])])
    kinds = _KINDS[what]
    formats = tuple(FORMATS[name] for name, _ in kinds)
    x = np.full((COUNT, LENGTH), float(PADDING))
    y = rng.integers(len(topics), size=COUNT)
    kind = rng.integers(len(kinds), size=COUNT)
    start, stop = np.zeros(COUNT, dtype=np.int64), np.zeros(COUNT, dtype=np.int64)
    for row in range(COUNT):
        topic = topics[y[row]]
        own = formats[kind[row]]
        secret = own.spelled(own.draw(1, rng))[0]
        before = f"\n{topic[rng.integers(len(topic))]}, {kinds[kind[row]][1].removesuffix('{}')}"
        behind = f" {endings[rng.integers(len(endings))]}\n"
        said = tuple(secret[secret != PADDING].tolist())
        whole = (*encode(before), *said, *encode(behind))
        x[row, : len(whole)] = whole
        start[row], stop[row] = len(before), len(before) + len(said)
    return x, y.astype(np.int64), None, Secrets.at(formats, kind, start, stop)
