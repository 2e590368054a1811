"""The claims of a record as entries of OpenDP's Differential Privacy Deployments Registry, under its names.

Fields are those of Nanayakkara, Ghazi & Vadhan (2025, arXiv:2509.13509) as the registry's files spell them.
What a record cannot know, such as the curator, is null and has to be filled in by whoever registers.
"""

from __future__ import annotations

from typing import Any

from dpaudit.claim import Adjacency, Claim, Phase
from dpaudit.record import AuditRecord, TargetRecord
from dpaudit.reports import numbers, view, words, yaml_text

_METRIC = {
    Adjacency.ADD_REMOVE: "symmetric distance: one added or removed",
    Adjacency.REPLACE_ONE: "change-one distance: one exchanged for another",
}


def render(record: AuditRecord) -> str:
    """One YAML document for each audited target that makes a claim."""
    targets = [target for target in words.audited(record) if target.claim is not None]
    head = ["# Fields that are null have to be filled in by whoever registers the deployment."]
    if not targets:
        return "\n".join([*head, "# No audited target of this record makes a claim.", ""])
    documents = ["\n".join(yaml_text.lines(entry(record, target))) for target in targets]
    return "\n".join([*head, "\n---\n".join(documents), ""])


def entry(record: AuditRecord, target: TargetRecord) -> dict[str, Any]:
    """The entry of one target, which has a claim."""
    claim = target.claim
    assert claim is not None
    return {
        "status": "Draft",
        "tier": None,
        "deployment": {
            "product": {
                "name": f"{record.title}: {target.name}",
                "data_curators": None,
                "intended_use": None,
                "data_product_type": "Machine learning model" if target.n_parameters else None,
                "data_product_region": None,
                "description": target.description,
                "publication_date": None,
                "data_product_sector": None,
            },
            "dp_flavor": _flavor(claim),
            "privacy_loss": {
                "privacy_unit": f"{claim.unit.capitalize()}-level",
                "privacy_unit_description": f"Neighbours: {claim.adjacency}, one {claim.unit}.",
                "privacy_parameters": {"epsilon": claim.epsilon, "delta": claim.delta},
                "privacy_parameters_description": _audited(record, target, claim),
            },
            "model": {
                "model_name": "Central" if claim.ledger else None,
                "actors": None,
                "release_type": None,
                "data_source_type": None,
                "access_type": None,
            },
            "accounting": {"post_processing": None, "composition": _composition(target, claim)},
            "implementation": {
                "pre_processing_eda_hyperparameter_tuning": None,
                "mechanisms": "; ".join(map(_mechanism, claim.ledger)) or None,
                "justification": None,
            },
            "resources": {
                "sources": f"Audit record, plan {record.provenance.plan_sha256}",
                "registry_authors": None,
            },
        },
    }


def _flavor(claim: Claim) -> dict[str, Any]:
    return {
        "name": "Approximate DP" if claim.delta else "Pure DP",
        "input_metric": _METRIC[claim.adjacency],
        "bound_on_input_distance": 1,
        "output_measure": "smoothed max divergence" if claim.delta else "max divergence",
        "bound_on_output_distance": f"({claim.epsilon:g}, {claim.delta:g})",
        "data_domain": None,
        "unprotected_quantities": None,
    }


def _audited(record: AuditRecord, target: TargetRecord, claim: Claim) -> str:
    return (
        f"Stated by: {claim.source}. Audited on {record.provenance.created[:10]} with dpaudit "
        f"{record.provenance.dpaudit_version}: {view.status_of(target)}, lower bound "
        f"{numbers.epsilon(target.verdict.epsilon_lower, end='lower')}, ceiling "
        f"{numbers.epsilon(view.ceiling(target))}, level {numbers.level(target.alpha)}."
    )


def _composition(target: TargetRecord, claim: Claim) -> str | None:
    rows = [
        f"{row.accountant} {numbers.epsilon(row.epsilon)}"
        for row in target.recomputed
        if row.adjacency == claim.adjacency
    ]
    return f"Over all steps, recomputed from the ledger: {', '.join(rows)}." if rows else None


def _mechanism(phase: Phase) -> str:
    return (
        f"{phase.steps} steps of a Gaussian mechanism, noise multiplier {phase.noise_multiplier:g}, clipping "
        f"norm {phase.max_grad_norm:g}, {phase.sampler} sampling at rate {phase.sample_rate:.4g}"
    )
