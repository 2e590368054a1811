"""Secrets that were planted in a language model's records: how far they stand out, and whether they come out.

Exposure ranks a secret among others that could as well have been planted (Carlini et al. 2019,
arXiv:1802.08232). How many samples bring a secret out follows from the probabilities of its tokens, without
sampling (Hayes et al. 2024, arXiv:2410.19482). What sampled texts contain is counted, too (Lukas et al. 2023,
arXiv:2302.00539).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpaudit.asking import Asked, Extracted, SecretsAsked
from dpaudit.attacks.extraction.spans import matching, spelt
from dpaudit.check import FloatArray, in_range
from dpaudit.evidence import Access
from dpaudit.protocols import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """Rank every planted secret, work out the samples that it takes, and look for secrets in sampled texts.

    Attributes:
        references: K, other secrets of the space beside each planted one.
        queries: n, samples that an adversary can pay for.
        probability: p, with which a secret has to come out within n samples.
        temperature: of the sampling.
        top_k: most likely tokens that are drawn from; 0 for all.
        generated: texts that are sampled to look for secrets; 0 for none.
        prompt: tokens that each sampled text starts with, from records outside the game.
        shadows: other models that are trained; with any, the bound is over the runs, without over the one.
    """

    name: str = "extraction"
    access: Access = Access.FINAL_MODEL
    references: int = 255
    queries: int = 1000
    probability: float = 0.5
    temperature: float = 1.0
    top_k: int = 0
    generated: int = 200
    prompt: int = 1
    shadows: int = 0

    def __post_init__(self) -> None:
        """Refuse what no sampling can be."""
        in_range("references", self.references, 1, 10**6)
        in_range("queries", self.queries, 1, math.inf)
        in_range("probability", self.probability, 0.0, 1.0, open_low=True, open_high=True)
        in_range("temperature", self.temperature, 0.0, math.inf, open_low=True)
        in_range("top_k", self.top_k, 0, math.inf)
        in_range("generated", self.generated, 0, 10**6)
        in_range("prompt", self.prompt, 1, 10**4)

    @property
    def asked(self) -> Asked:
        """The likelihoods of candidates and tokens, and texts."""
        wanted = SecretsAsked(
            references=self.references,
            temperature=self.temperature,
            top_k=self.top_k,
            generated=self.generated,
            prompt=self.prompt,
        )
        return Asked(secrets=wanted)

    def extracted(self, view: View) -> Extracted | None:
        """What one model gave away; see `dpaudit.asking.Extracts`. Costs a pass over scores and texts."""
        secrets = view.canaries.secrets
        if secrets is None or not view.secret_scores.size:
            return None
        planted, member, x = secrets.planted, view.canaries.member, view.canaries.x
        inside = matching(secrets.formats, spelt(x[member]))
        outside = matching(secrets.formats, spelt(x[~member])) - inside
        said = matching(secrets.formats, spelt(view.generated))
        return Extracted(
            member=member[planted],
            size=np.array([secrets.formats[kind].size for kind in secrets.kind[planted]], dtype=np.float64),
            p_values=rank_p_values(view.secret_scores),
            n_references=view.secret_scores.shape[1] - 1,
            queries=queries_needed(view.secret_tokens.sum(axis=1), self.probability),
            n=self.queries,
            p=self.probability,
            leaked=(len(inside), len(inside & said)),
            beside=(len(outside), len(outside & said)),
            said=(len(said), len(said & inside)),
        )


def rank_p_values(scores: FloatArray) -> FloatArray:
    """`(1 + #{references as high}) / (K + 1)`, (s,), from scores (s, K + 1), the secret's own first.

    What is not a number speaks for nobody: a model that diverged ranks every secret last.
    """
    above = (~(scores[:, 1:] < scores[:, :1])).sum(axis=1)
    ranks: FloatArray = (1.0 + above) / scores.shape[1]
    return ranks


def queries_needed(log_probability: FloatArray, p: float) -> FloatArray:
    """Samples (s,) after which a secret has come at least once with probability p; inf where never.

    1 - (1 - p_z)^n >= p, with p_z the product of the probabilities of its tokens (Hayes et al. 2024,
    arXiv:2410.19482).

    Args:
        log_probability: (s,) log p_z.
        p: in (0, 1).
    """
    with np.errstate(divide="ignore", over="ignore"):
        # log(1 - p_z) is -p_z itself where p_z has no digits left beside 1.
        rate = np.where(log_probability < -30, np.exp(log_probability), -np.log1p(-np.exp(log_probability)))
        needed: FloatArray = np.maximum(1.0, np.ceil(-math.log1p(-p) / rate * (1 - 1e-12)))
    return needed
