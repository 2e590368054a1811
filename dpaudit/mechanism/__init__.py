"""Audit any release mechanism: `audit_mechanism` in Python, `assert_dp` in a test."""

from dpaudit.mechanism.audit import MechanismAudit, assert_dp, audit_mechanism
from dpaudit.mechanism.settings import Settings
from dpaudit.stats.guarantees import ApproximateDP, GaussianDP, RenyiDP, SeveralDP

__all__ = [
    "ApproximateDP",
    "GaussianDP",
    "MechanismAudit",
    "RenyiDP",
    "SeveralDP",
    "Settings",
    "assert_dp",
    "audit_mechanism",
]
