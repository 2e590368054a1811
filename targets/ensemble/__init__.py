"""Shadow models by the hundred: one recipe, many sets of members, trained as a stack."""

from dpaudit.targets.ensemble.training import Ensemble, train_ensemble

__all__ = ["Ensemble", "train_ensemble"]
