"""Language models: causal, of generated texts, and measured as a naive reading measures them."""

import numpy as np
import pytest
import torch

from dpaudit.asking import SecretsAsked
from dpaudit.secret import PADDING, Format, Secrets
from dpaudit.targets.datasets import load
from dpaudit.targets.language.likelihoods import candidate_scores, generated, scheme, token_scores
from dpaudit.targets.language.model import CausalModel
from dpaudit.targets.language.texts import ALPHABET, clinical_notes, decode, tickets
from dpaudit.targets.language.training import losses

PIN = Format(name="pin", slots=(((1,), (2, 3), (4,)), ((5,), (6,), (7,))))


def asked(**options):
    given = {"references": 4, "temperature": 1.0, "top_k": 0, "generated": 5, "prompt": 2, **options}
    return SecretsAsked(**given)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return CausalModel(9, 10, width=16, layers=2).eval()


@pytest.fixture(scope="module")
def texts():
    x = np.full((3, 10), float(PADDING))
    x[:, :6] = [[0, 8, 1, 5, 8, 0], [0, 7, 1, 5, 3, 0], [0, 0, 1, 5, 2, 0]]
    secrets = Secrets.at((PIN,), np.zeros(3), np.full(3, 2), np.full(3, 4))
    return secrets.plant(x, np.arange(2), np.random.default_rng(1))


@torch.no_grad()
def naive(model, said, start, temperature=1.0, top_k=0):
    """Log-probability of each token from `start` on, one forward pass each."""
    found = []
    for at in range(start, len(said)):
        logits = model(torch.tensor([said[:at]]))[0, -1].double().numpy() / temperature
        kept = np.sort(logits)[-top_k] if top_k else -np.inf
        weight = np.where(logits >= kept, np.exp(logits - logits.max()), 0.0)
        with np.errstate(divide="ignore"):
            found.append(np.log(weight[said[at]] / weight.sum()))
    return found


@pytest.mark.parametrize("source", [tickets, clinical_notes])
def test_every_text_has_room_and_a_secret_of_its_format_at_its_place(source):
    x, y, groups, secrets = load(source)
    assert len(x) == 240 and set(y) == {0, 1, 2} and groups == {}
    for row in range(len(x)):
        own = secrets.formats[secrets.kind[row]]
        said = x[row, secrets.start[row] : secrets.stop[row]].astype(int).tolist()
        for slot in own.slots:
            (first,) = [tokens for tokens in slot if tuple(said[: len(tokens)]) == tokens]
            said = said[len(first) :]
        assert said == []
        assert secrets.start[row] + own.longest + len(x[row]) - secrets.stop[row] - (x[row] < 0).sum() <= 80
    assert decode(x[0])[0] == decode(x[0])[-1] == "\n" and x.max() < len(ALPHABET)
    assert (source()[0] == source()[0]).all()


def test_the_model_is_causal_and_takes_any_ids(model):
    tokens = torch.randint(0, 9, (2, 10))
    other = tokens.clone()
    other[:, 6:] = 0
    with torch.no_grad():
        assert torch.allclose(model(tokens)[:, :6], model(other)[:, :6], atol=1e-6)
        assert torch.isfinite(model(torch.full((1, 4), 1e6))).all()


def test_losses_are_means_over_the_tokens_that_are_said(model, texts):
    x, _ = texts
    with torch.no_grad():
        found = losses(model, torch.as_tensor(x).long()).numpy()
    expected = [-np.mean(naive(model, [int(t) for t in row if t >= 0], 1)) for row in x]
    assert found == pytest.approx(expected, rel=1e-5)


def test_candidates_are_scored_after_what_stands_before_the_secret(model, texts):
    x, secrets = texts
    with torch.no_grad():
        found = candidate_scores(model, x, secrets, 4, "cpu")
    for place, row in enumerate(secrets.planted):
        before = x[row, : secrets.start[row]].astype(int).tolist()
        rows = [[*before, *(t for t in each if t >= 0)] for each in secrets.candidates(int(row), 4).tolist()]
        assert found[place] == pytest.approx([sum(naive(model, said, 2)) for said in rows], rel=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_k": 2, "temperature": 2.0}]
)
def test_tokens_have_the_probability_that_the_scheme_draws_them_with(model, texts, options):
    x, secrets = texts
    wanted = asked(**options)
    with torch.no_grad():
        found = token_scores(model, x, secrets, wanted, "cpu")
    for place, row in enumerate(secrets.planted):
        said = x[row, : secrets.stop[row]].astype(int).tolist()
        expected = naive(model, said, 2, wanted.temperature, wanted.top_k)
        assert found[place, : len(expected)] == pytest.approx(expected, rel=1e-4)
        assert (found[place, len(expected) :] == 0).all()


def test_a_scheme_is_a_distribution():
    logits = torch.randn(4, 9, dtype=torch.float64)
    for temperature, top_k in ((1.0, 0), (0.3, 4), (1.0, 50)):
        assert torch.allclose(scheme(logits, temperature, top_k).exp().sum(-1), torch.ones(4).double())


def test_texts_go_on_from_records_outside_the_game_as_the_scheme_says():
    def counting(tokens):
        return torch.nn.functional.one_hot((tokens.long() + 1) % 9, 9).float() * 50

    prompts = np.array([[0, 4, 1], [5, 6, 1]], dtype=np.float64)
    found = generated(counting, prompts, asked(), 6, "cpu")
    assert found.tolist() == [[0, 4, 5, 6, 7, 8], [5, 6, 7, 8, 0, 1]] * 2 + [[0, 4, 5, 6, 7, 8]]
