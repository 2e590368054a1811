"""Data sets whose items are made of several records, and those whose items are not."""

from __future__ import annotations

import gc
import os
import random
import secrets
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from dpaudit.targets.items import Items

N = 60
X = torch.randn(N, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 3
PUBLIC = torch.randn(N, 5, generator=torch.Generator().manual_seed(1))


class _Rows(Dataset[Any]):
    """Hands out its rows; what is wrong with others is in `__getitem__`."""

    def __init__(self) -> None:
        self.x, self.y = X.clone(), Y.clone()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        return self.x[i], self.y[i]


class Mixup(_Rows):
    def __getitem__(self, i: int) -> Any:
        j = int(torch.randint(len(self), ()))
        return 0.7 * self.x[i] + 0.3 * self.x[j], self.y[i]


class SometimesMixup(_Rows):
    def __getitem__(self, i: int) -> Any:
        return self.x[i] + (self.x[random.randrange(N)] if random.random() < 0.5 else 0), self.y[i]


class Normalised(_Rows):
    def __getitem__(self, i: int) -> Any:
        return self.x[i] - self.x.mean(0), self.y[i]


class Pairs(_Rows):
    def __getitem__(self, i: int) -> Any:
        return {"anchor": self.x[i], "other": self.x[(i + 7) % N]}


class OfRecords(_Rows):
    def __init__(self) -> None:
        self.records = [{"x": x.tolist(), "y": int(y)} for x, y in zip(X, Y, strict=True)]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> Any:
        other = self.records[np.random.randint(N)]
        return torch.tensor(self.records[i]["x"]) + torch.tensor(other["x"]), self.records[i]["y"]


class Around(_Rows):
    """Mixes what another data set hands out."""

    def __init__(self) -> None:
        self.inner = TensorDataset(X, Y)

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, i: int) -> Any:
        (x, y), (other, _) = self.inner[i], self.inner[int(torch.randint(N, ()))]
        return x + other, y


class FromGlobals(_Rows):
    """Holds nothing itself."""

    def __init__(self) -> None: ...

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> Any:
        return _mixed(i), Y[i]


def _mixed(i: int) -> torch.Tensor:
    return (X[i] + X[random.randrange(N)]) / 2


def _around() -> type[_Rows]:
    rows = X.numpy().copy()

    class FromAround(FromGlobals):
        def __getitem__(self, i: int) -> Any:
            return rows[i] + rows[np.random.randint(N)], Y[i]

    return FromAround


class OfItsClass(FromGlobals):
    rows = X.clone()

    def __getitem__(self, i: int) -> Any:
        return self.rows[i] + self.rows[random.randrange(N)], Y[i]


class Locked(_Rows):
    """Cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = Lock()

    def __getitem__(self, i: int) -> Any:
        with self.lock:
            return self.x[i] + self.x[random.randrange(N)], self.y[i]


class WithPool(_Rows):
    """Mixes with some of its rows, which it holds a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = self.x[:20].numpy().copy()

    def __getitem__(self, i: int) -> Any:
        return self.x[i] + torch.from_numpy(self.pool[random.randrange(20)]), self.y[i]


class ByClass(_Rows):
    """Mixes with records of the same class, of which it holds lists."""

    def __init__(self) -> None:
        rows = torch.randn(120, 5, generator=torch.Generator().manual_seed(0))
        self.records = tuple((x.clone(), i % 3) for i, x in enumerate(rows))
        self.of = {y: [r for r in self.records if r[1] == y] for y in range(3)}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> Any:
        x, y = self.records[i]
        return x + random.choice(self.of[y])[0], y


class Sparse(_Rows):
    def __init__(self, others: bool = True) -> None:
        self.x, self.others = csr_matrix(X.numpy()), others

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> Any:
        row = self.x[i] + self.x[random.randrange(N)] if self.others else self.x[i]
        return row.toarray()[0], Y[i]


class Fresh(_Rows):
    """Makes a generator without a seed for each item."""

    def __getitem__(self, i: int) -> Any:
        rng = np.random.default_rng()
        return self.x[i] + float(rng.random()) * self.x[int(rng.integers(N))], self.y[i]


class InBatches(_Rows):
    def __getitems__(self, numbers: list[int]) -> Any:
        mean = torch.stack([self.x[i] for i in numbers]).mean(0)
        return [(self.x[i] - mean, self.y[i]) for i in numbers]


class Rarely(_Rows):
    """Mixes one item in fifty."""

    def __init__(self) -> None:
        self.x = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0))
        self.y = torch.zeros(1000)

    def __getitem__(self, i: int) -> Any:
        return self.x[i] + (self.x[random.randrange(1000)] if random.random() < 0.02 else 0), self.y[i]


class Augmented(_Rows):
    def __getitem__(self, i: int) -> Any:
        x = self.x[i] + torch.randn(5) + np.random.normal() + random.random()
        return x.flip(0) if random.random() < 0.5 else x, self.y[i]


class Ordered(_Rows):
    """Looks its rows up under other numbers, which it holds as well."""

    def __init__(self) -> None:
        super().__init__()
        self.order = torch.randperm(N)
        self.numbers = list(range(N))

    def __getitem__(self, i: int) -> Any:
        k = int(self.order[self.numbers[i]])
        return self.x[k], self.y[k]


class Drawing(_Rows):
    """Draws from a generator of its own and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.rng, self.seen = np.random.default_rng(0), np.zeros(N)

    def __getitem__(self, i: int) -> Any:
        self.seen[i] += 1
        self.x[i] *= 1.5
        return self.x[i] * float(self.rng.normal()), self.y[i]


class Caching(_Rows):
    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[int, Any] = {}

    def __getitem__(self, i: int) -> Any:
        if i not in self.cache:
            self.cache[i] = self.x[i] / self.x[i].norm()
        return self.cache[i], self.y[i]


class Unseeded(_Rows):
    """Draws what no seed holds still, and what a module holds."""

    def __getitem__(self, i: int) -> Any:
        x = self.x[i].flip(0) if secrets.randbelow(2) else self.x[i]
        return x + float(np.random.default_rng().random() < 0.01), self.y[i]


class RarelyUnseeded(_Rows):
    def __getitem__(self, i: int) -> Any:
        return self.x[i] + (1.0 if secrets.randbelow(200) == 0 else 0.0), self.y[i]


class Ragged(_Rows):
    """Rows of several lengths in one array, found by where each ends."""

    def __init__(self, whole: bool) -> None:
        self.lengths = np.arange(N) % 5 + 3
        self.ends, self.whole = np.cumsum(self.lengths), whole
        self.tokens = np.random.default_rng(0).normal(size=(int(self.ends[-1]), 2))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> Any:
        start = self.lengths[:i].sum() if self.whole else self.ends[i - 1] if i else 0
        return self.tokens[start : start + self.lengths[i]].sum(0)


class Words(_Rows):
    """Looks words up in what has rows, too, of as many words as there are texts."""

    class Vocabulary:
        def __init__(self) -> None:
            self.vectors = torch.randn(N, 4)

        def __len__(self) -> int:
            return N

        def __getitem__(self, word: int) -> torch.Tensor:
            return self.vectors[word]

    def __init__(self) -> None:
        super().__init__()
        self.vocabulary = self.Vocabulary()
        self.texts = [np.random.default_rng(i).integers(0, N, 6).tolist() for i in range(N)]

    def __getitem__(self, i: int) -> Any:
        return torch.stack([self.vocabulary[word] for word in self.texts[i]]).mean(0)


class ByUser(_Rows):
    """Its records are users, each of several rows of another data set."""

    def __init__(self) -> None:
        self.base = TensorDataset(X, Y)
        self.rows = {user: [3 * user, 3 * user + 1, 3 * user + 2] for user in range(N // 3)}

    def __len__(self) -> int:
        return N // 3

    def __getitem__(self, i: int) -> Any:
        return torch.stack([self.base[j][0] for j in self.rows[i]]).mean(0)


class WithPublic(_Rows):
    """Normalises by as many public records."""

    def __init__(self) -> None:
        super().__init__()
        self.public = torch.randn(N, 5) + 1

    def __getitem__(self, i: int) -> Any:
        return (self.x[i] - self.public.mean(0)) / self.public.std(0), self.y[i]


class Blended(_Rows):
    """Blends with pictures of a public data set."""

    def __init__(self) -> None:
        super().__init__()
        self.public = TensorDataset(torch.randn(40, 5))

    def __getitem__(self, i: int) -> Any:
        one, other = (self.public[random.randrange(40)][0] for _ in range(2))
        return self.x[i] + 0.1 * one + 0.1 * other


class Searched(_Rows):
    """Finds rows by numbers that are sorted."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = np.random.default_rng(3).permutation(7 * np.arange(N))
        self.numbers = np.sort(self.asked)

    def __getitem__(self, i: int) -> Any:
        return self.x[min(int(np.searchsorted(self.numbers, self.asked[i])), N - 1)]


class Noted(_Rows):
    """Hands out what is different each time, and what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = (line for line in "ab")


class Windows(_Rows):
    """Its items are windows of a series that is longer than there are of them."""

    def __len__(self) -> int:
        return N - 4

    def __getitem__(self, i: int) -> Any:
        return self.x[i : i + 5]


class InWeather(_Rows):
    """Its rows stand beside windows of a public series that is as long."""

    def __init__(self) -> None:
        super().__init__()
        self.weather = torch.randn(N, 2) / 4

    def __getitem__(self, i: int) -> Any:
        return torch.cat([self.x[i], self.weather[max(0, i - 6) : i + 1].mean(0)]), self.y[i]


class Copied(_Rows):
    """Holds its rows twice, and hands out each beside its copy."""

    def __init__(self) -> None:
        super().__init__()
        self.again = self.x.numpy().copy()

    def __getitem__(self, i: int) -> Any:
        return self.x[i], self.again[i], self.y[i]


class OwnOfGlobals(FromGlobals):
    def __getitem__(self, i: int) -> Any:
        return X[i] - PUBLIC.mean(0), Y[i]


def _looked(dataset: Any) -> list[Any]:
    items = Items()
    items.look(dataset)
    items.look(dataset)
    return list(items.findings())


WRONG: list[type[_Rows]] = [Mixup, SometimesMixup, Normalised, Pairs, OfRecords, Around, FromGlobals]
WRONG += [_around(), OfItsClass, Locked, WithPool, ByClass, Sparse, Fresh, InBatches, Rarely]


@pytest.mark.parametrize("kind", WRONG)
def test_items_of_several_records_are_found_and_named(kind: type[_Rows]) -> None:
    (found,) = _looked(kind())
    assert found.where.startswith(f"{kind.__name__}.__getitem__ (test_items.py:")


@pytest.mark.parametrize(
    "wrap", [lambda made: Subset(made, range(40)), lambda made: ConcatDataset([made, made])]
)
def test_data_sets_are_looked_at_inside_of_others(wrap: Callable[[Dataset[Any]], Dataset[Any]]) -> None:
    assert _looked(wrap(Mixup()))
    assert not _looked(wrap(Augmented()))


RIGHT: list[Callable[[], Dataset[Any]]] = [_Rows, Augmented, Unseeded, RarelyUnseeded, Ordered, Drawing]
RIGHT += [Caching, Noted, Windows, Words, ByUser, WithPublic, Blended, Searched]
RIGHT += [InWeather, Copied, OwnOfGlobals, lambda: Sparse(False), lambda: Ragged(True)]
RIGHT += [lambda: Ragged(False)]


@pytest.mark.parametrize("make", RIGHT)
def test_items_of_one_record_are_not_accused(make: Callable[[], Dataset[Any]]) -> None:
    assert not _looked(make())


def test_frames_are_looked_into() -> None:
    pandas = pytest.importorskip("pandas")

    class Frame(_Rows):
        def __init__(self, others: bool) -> None:
            self.frame, self.others = pandas.DataFrame(X.numpy(), index=100 + np.arange(N)), others

        def __len__(self) -> int:
            return N

        def __getitem__(self, i: int) -> Any:
            row = self.frame.iloc[i].to_numpy()
            return row - self.frame.loc[100:].mean().to_numpy() if self.others else row

    assert _looked(Frame(True))
    assert not _looked(Frame(False))


def test_what_may_be_public_is_a_note() -> None:
    items = Items()
    items.look(InWeather())
    (note,) = items.notes()
    assert "rows of `weather`" in note.measured and "as private as `x`" in note.meaning


def test_items_that_nothing_is_known_of_are_a_note() -> None:
    items = Items()
    items.look(ConcatDataset([Unseeded(), _Rows(), Windows()]))
    assert sorted(note.where.split(".")[0] for note in items.notes()) == ["Unseeded", "Windows"]
    assert all("not tested" in note.measured for note in items.notes())


def test_what_is_too_large_to_copy_is_left_alone() -> None:
    dataset = Mixup()
    dataset.x = torch.zeros(1).expand(N, 1 << 23)
    items = Items()
    items.look(dataset)
    assert not list(items.findings())
    assert "not tested" in next(items.notes()).measured


def test_variables_are_left_as_they_were() -> None:
    before = X
    for kind in (FromGlobals, _around()):
        dataset = kind()
        assert _looked(dataset)
        assert X is before


def test_data_and_random_states_are_left_as_they_were() -> None:
    dataset = Drawing()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    _looked(dataset)
    assert torch.equal(dataset.x, X)
    assert not dataset.seen.any()
    assert dataset.rng.normal() == np.random.default_rng(0).normal()
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()


class OnDisk(_Rows):
    """Keeps what it handed out in files."""

    def __init__(self, folder: Path, save: Callable[[Any, Path], Any]) -> None:
        super().__init__()
        self.folder, self.save = folder, save

    def __getitem__(self, i: int) -> Any:
        file = self.folder / f"{i}"
        if not file.exists():
            self.save(self.x[i], file)
        return self.x[i] + self.x[0], self.y[i]


def test_the_end_of_a_copy_does_nothing(tmp_path: Path) -> None:
    class Temporary(_Rows):
        def __init__(self) -> None:
            super().__init__()
            self.file, self.itself = tmp_path / "rows", self
            self.file.touch()

        def __del__(self) -> None:
            self.file.unlink()

    dataset = Temporary()
    _looked(dataset)
    gc.collect()
    assert dataset.file.exists()


@pytest.mark.parametrize(
    "save",
    [
        torch.save,
        lambda x, file: torch.save(x, str(file)),
        lambda x, file: np.save(file, x.numpy()),
        lambda x, file: file.write_bytes(b"x"),
        lambda x, file: file.mkdir(),
        lambda x, file: os.close(os.open(file, os.O_CREAT | os.O_WRONLY)),
    ],
)
def test_no_file_is_left_behind_and_none_is_refused_afterwards(
    save: Callable[[Any, Path], Any], tmp_path: Path
) -> None:
    dataset = OnDisk(tmp_path, save)
    _looked(dataset)
    assert not list(tmp_path.iterdir())
    dataset[3]
    assert len(list(tmp_path.iterdir())) == 1


def test_torch_data_sets_are_not_looked_into() -> None:
    assert not _looked(TensorDataset(X, Y))
    assert not _looked(Subset(TensorDataset(X, Y), range(10)))
