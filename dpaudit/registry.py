"""Names to objects, lazily: the only module that knows attacks and targets by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_type_hints

from dpaudit.errors import UsageError, nearest

TRAININGS: Mapping[str, str] = {
    "plain": "dpaudit.targets.trainer:fit_plain",
    "opacus": "dpaudit.targets.trainer:fit_opacus",
    "convex": "dpaudit.targets.convex:fit_convex",
    "language-model": "dpaudit.targets.language.training:fit_plain",
    "language-model-opacus": "dpaudit.targets.language.training:fit_opacus",
    "language-model-lora": "dpaudit.targets.language.hugging_face:fit_lora",
}
DATA: Mapping[str, str] = {
    "digits": "dpaudit.targets.datasets:digits",
    "breast-cancer": "dpaudit.targets.datasets:breast_cancer",
    "tickets": "dpaudit.targets.language.texts:tickets",
    "clinical-notes": "dpaudit.targets.language.texts:clinical_notes",
}
ATTACKS: Mapping[str, str] = {
    "replay": "dpaudit.attacks.replay:ReplayAttack",
    "step-canary": "dpaudit.attacks.step_canary:StepCanary",
    "sampler": "dpaudit.attacks.sampler:SamplerAttack",
    "prior-aware": "dpaudit.attacks.reconstruction.prior_aware:PriorAware",
    "line-up": "dpaudit.attacks.reconstruction.line_up:LineUp",
    "gradient-inversion": "dpaudit.attacks.reconstruction.gradient_inversion:GradientInversion",
    "model-inversion": "dpaudit.attacks.reconstruction.model_inversion:ModelInversion",
    "kkt-reconstruction": "dpaudit.attacks.reconstruction.stationary:KKTReconstruction",
    "reconstructor": "dpaudit.attacks.reconstruction.reconstructor:Reconstructor",
    "informed": "dpaudit.attacks.reconstruction.informed:Informed",
    "extraction": "dpaudit.attacks.extraction.planted:Extraction",
    "worst-case": "dpaudit.attacks.membership.worst_case:WorstCase",
    "loss-threshold": "dpaudit.attacks.membership.loss_threshold:LossThreshold",
    "lira": "dpaudit.attacks.membership.lira:Lira",
    "lira-offline": "dpaudit.attacks.membership.lira:LiraOffline",
    "rmia": "dpaudit.attacks.membership.rmia:Rmia",
    "rmia-offline": "dpaudit.attacks.membership.rmia:RmiaOffline",
    "bavaria": "dpaudit.attacks.membership.bavaria:Bavaria",
    "confidence": "dpaudit.attacks.membership.signals:Confidence",
    "entropy": "dpaudit.attacks.membership.signals:Entropy",
    "modified-entropy": "dpaudit.attacks.membership.signals:ModifiedEntropy",
    "attack-p": "dpaudit.attacks.membership.calibration:AttackP",
    "attack-r": "dpaudit.attacks.membership.calibration:AttackR",
    "difficulty": "dpaudit.attacks.membership.calibration:Difficulty",
    "quantile-regression": "dpaudit.attacks.membership.quantile:QuantileRegression",
    "augmentation-vote": "dpaudit.attacks.membership.label_only:AugmentationVote",
    "boundary-distance": "dpaudit.attacks.membership.label_only:BoundaryDistance",
    "attribute-inference": "dpaudit.attacks.attribute_inference:AttributeInference",
    "gradient-norm": "dpaudit.attacks.membership.gradient_norm:GradientNorm",
}
LIBRARY_MECHANISMS: Mapping[str, str] = {
    "diffprivlib/laplace": "dpaudit.targets.libraries.diffprivlib:laplace",
    "diffprivlib/laplace-truncated": "dpaudit.targets.libraries.diffprivlib:laplace_truncated",
    "diffprivlib/laplace-folded": "dpaudit.targets.libraries.diffprivlib:laplace_folded",
    "diffprivlib/laplace-bounded-domain": "dpaudit.targets.libraries.diffprivlib:laplace_bounded_domain",
    "diffprivlib/laplace-bounded-noise": "dpaudit.targets.libraries.diffprivlib:laplace_bounded_noise",
    "diffprivlib/geometric": "dpaudit.targets.libraries.diffprivlib:geometric",
    "diffprivlib/geometric-truncated": "dpaudit.targets.libraries.diffprivlib:geometric_truncated",
    "diffprivlib/geometric-folded": "dpaudit.targets.libraries.diffprivlib:geometric_folded",
    "diffprivlib/snapping": "dpaudit.targets.libraries.diffprivlib:snapping",
    "diffprivlib/gaussian": "dpaudit.targets.libraries.diffprivlib:gaussian",
    "diffprivlib/gaussian-analytic": "dpaudit.targets.libraries.diffprivlib:gaussian_analytic",
    "diffprivlib/gaussian-discrete": "dpaudit.targets.libraries.diffprivlib:gaussian_discrete",
    "diffprivlib/staircase": "dpaudit.targets.libraries.diffprivlib:staircase",
    "diffprivlib/exponential": "dpaudit.targets.libraries.diffprivlib:exponential",
    "diffprivlib/permute-and-flip": "dpaudit.targets.libraries.diffprivlib:permute_and_flip",
    "diffprivlib/randomised-response": "dpaudit.targets.libraries.diffprivlib:Binary",
    "diffprivlib/mean": "dpaudit.targets.libraries.diffprivlib_tools:mean",
    "diffprivlib/variance": "dpaudit.targets.libraries.diffprivlib_tools:variance",
    "diffprivlib/standard-deviation": "dpaudit.targets.libraries.diffprivlib_tools:standard_deviation",
    "diffprivlib/sum": "dpaudit.targets.libraries.diffprivlib_tools:total",
    "diffprivlib/count-nonzero": "dpaudit.targets.libraries.diffprivlib_tools:count_nonzero",
    "diffprivlib/histogram": "dpaudit.targets.libraries.diffprivlib_tools:histogram",
    "diffprivlib/quantile": "dpaudit.targets.libraries.diffprivlib_tools:quantile",
    "diffprivlib/gaussian-nb": "dpaudit.targets.libraries.diffprivlib_models:gaussian_nb",
    "diffprivlib/linear-regression": "dpaudit.targets.libraries.diffprivlib_models:linear_regression",
    "diffprivlib/logistic-regression": "dpaudit.targets.libraries.diffprivlib_models:logistic_regression",
    "diffprivlib/k-means": "dpaudit.targets.libraries.diffprivlib_models:k_means",
    "diffprivlib/standard-scaler": "dpaudit.targets.libraries.diffprivlib_models:standard_scaler",
    "opendp/laplace": "dpaudit.targets.libraries.opendp:laplace",
    "opendp/laplace-integer": "dpaudit.targets.libraries.opendp:laplace_integer",
    "opendp/gaussian": "dpaudit.targets.libraries.opendp:gaussian",
    "opendp/gaussian-integer": "dpaudit.targets.libraries.opendp:gaussian_integer",
    "opendp/noisy-max": "dpaudit.targets.libraries.opendp:NoisyMax",
    "opendp/randomized-response": "dpaudit.targets.libraries.opendp:RandomizedResponse",
    "opendp/sum": "dpaudit.targets.libraries.opendp:total",
    "opendp/count": "dpaudit.targets.libraries.opendp:count",
    "opendp/mean": "dpaudit.targets.libraries.opendp:mean",
    "opendp/histogram": "dpaudit.targets.libraries.opendp:histogram",
    "python-dp/bounded-mean": "dpaudit.targets.libraries.python_dp:bounded_mean",
    "python-dp/bounded-sum": "dpaudit.targets.libraries.python_dp:bounded_sum",
    "python-dp/bounded-variance": "dpaudit.targets.libraries.python_dp:bounded_variance",
    "python-dp/bounded-standard-deviation": "dpaudit.targets.libraries.python_dp:bounded_standard_deviation",
    "python-dp/count": "dpaudit.targets.libraries.python_dp:count",
    "python-dp/max": "dpaudit.targets.libraries.python_dp:maximum",
    "python-dp/min": "dpaudit.targets.libraries.python_dp:minimum",
    "python-dp/median": "dpaudit.targets.libraries.python_dp:median",
    "python-dp/percentile": "dpaudit.targets.libraries.python_dp:percentile",
}
MECHANISMS: Mapping[str, str] = {
    "laplace": "dpaudit.targets.mechanisms.additive:Laplace",
    "gaussian": "dpaudit.targets.mechanisms.additive:Gaussian",
    "geometric": "dpaudit.targets.mechanisms.discrete:Geometric",
    "truncated-geometric": "dpaudit.targets.mechanisms.discrete:TruncatedGeometric",
    "exponential": "dpaudit.targets.mechanisms.selection:Exponential",
    "noisy-max-1": "dpaudit.targets.mechanisms.selection:ReportNoisyMax1",
    "noisy-max-2": "dpaudit.targets.mechanisms.selection:ReportNoisyMax2",
    "noisy-max-3": "dpaudit.targets.mechanisms.selection:ReportNoisyMax3",
    "noisy-max-4": "dpaudit.targets.mechanisms.selection:ReportNoisyMax4",
    "randomised-response": "dpaudit.targets.mechanisms.response:RandomisedResponse",
    "rappor": "dpaudit.targets.mechanisms.response:RAPPOR",
    "one-time-rappor": "dpaudit.targets.mechanisms.response:OneTimeRAPPOR",
    "svt-1": "dpaudit.targets.mechanisms.sparse_vector:SVT1",
    "svt-2": "dpaudit.targets.mechanisms.sparse_vector:SVT2",
    "svt-3": "dpaudit.targets.mechanisms.sparse_vector:SVT3",
    "svt-4": "dpaudit.targets.mechanisms.sparse_vector:SVT4",
    "svt-5": "dpaudit.targets.mechanisms.sparse_vector:SVT5",
    "svt-6": "dpaudit.targets.mechanisms.sparse_vector:SVT6",
    "svt-1-sum": "dpaudit.targets.mechanisms.sparse_vector:SVT1Sum",
    "svt-1-reveal": "dpaudit.targets.mechanisms.sparse_vector:SVT1Reveal",
    "svt-2-sum": "dpaudit.targets.mechanisms.sparse_vector:SVT2Sum",
    "svt-2-reveal": "dpaudit.targets.mechanisms.sparse_vector:SVT2Reveal",
    "svt-3-sum": "dpaudit.targets.mechanisms.sparse_vector:SVT3Sum",
    "svt-3-reveal": "dpaudit.targets.mechanisms.sparse_vector:SVT3Reveal",
    "svt-4-sum": "dpaudit.targets.mechanisms.sparse_vector:SVT4Sum",
    "svt-4-reveal": "dpaudit.targets.mechanisms.sparse_vector:SVT4Reveal",
    "svt-5-sum": "dpaudit.targets.mechanisms.sparse_vector:SVT5Sum",
    "svt-5-reveal": "dpaudit.targets.mechanisms.sparse_vector:SVT5Reveal",
    "svt-6-sum": "dpaudit.targets.mechanisms.sparse_vector:SVT6Sum",
    "svt-6-reveal": "dpaudit.targets.mechanisms.sparse_vector:SVT6Reveal",
    "numerical-svt": "dpaudit.targets.mechanisms.sparse_vector:NumericalSVT",
    "gap-svt": "dpaudit.targets.mechanisms.sparse_vector:GapSVT",
    "free-gap-svt": "dpaudit.targets.mechanisms.sparse_vector:FreeGapSVT",
    "svt-34-parallel": "dpaudit.targets.mechanisms.sparse_vector:SVT34Parallel",
    "noisy-hist-1": "dpaudit.targets.mechanisms.histograms:NoisyHist1",
    "noisy-hist-2": "dpaudit.targets.mechanisms.histograms:NoisyHist2",
    "laplace-parallel": "dpaudit.targets.mechanisms.histograms:LaplaceParallel",
    "prefix-sum": "dpaudit.targets.mechanisms.histograms:PrefixSum",
    "partial-sum": "dpaudit.targets.mechanisms.histograms:PartialSum",
    "mean-0": "dpaudit.targets.mechanisms.means:Mean0",
    "mean-1": "dpaudit.targets.mechanisms.means:Mean1",
    "mean-2": "dpaudit.targets.mechanisms.means:Mean2",
    "gradient-step": "dpaudit.targets.mechanisms.means:GradientStep",
    "gradient-step-batch-clip": "dpaudit.targets.mechanisms.means:GradientStepBatchClip",
    "planted-control": "dpaudit.targets.mechanisms.planted:SoundSum",
    "planted-no-lower-clip": "dpaudit.targets.mechanisms.planted:NoLowerClip",
    "planted-nan": "dpaudit.targets.mechanisms.planted:NaNSurvives",
    "planted-empty": "dpaudit.targets.mechanisms.planted:EmptyRaises",
    "planted-true-count": "dpaudit.targets.mechanisms.planted:TrueCount",
    "planted-int8": "dpaudit.targets.mechanisms.planted:NarrowCount",
    "planted-quiet-cap": "dpaudit.targets.mechanisms.planted:QuietAtTheCap",
    "planted-half-scale": "dpaudit.targets.mechanisms.planted:HalfScale",
}
ENGINES: Mapping[str, str] = {
    "inline": "dpaudit.backend:InlineEngine",
    "local": "dpaudit.workers:LocalEngine",
    "ray": "dpaudit.cluster:RayEngine",
}
TRAINING_TARGET = "dpaudit.targets.observed:TrainingFunction"
TRAINED_TARGET = "dpaudit.targets.released:ReleasedModel"
STACKABLE = "dpaudit.targets.ensemble.shadows:stackable"
TRAIN_SHADOWS = "dpaudit.targets.ensemble.shadows:train_shadows"
PLAY = "dpaudit.targets.ensemble.worst_case:play"
LINE_UP = "dpaudit.targets.ensemble.line_up:play"
RECONSTRUCT = "dpaudit.targets.ensemble.reconstructor:play"
SCRIPT_TARGET = "dpaudit.targets.script:ScriptTarget"
LOAD_DATA = "dpaudit.targets.datasets:load"

_PLAIN: Mapping[type, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}
_FIXED = ("name", "access", "descriptive", "inverts", "show_records")
_GROUPS = {"attack": "dpaudit.attacks", "training function": "dpaudit.targets"}


def known(kind: str, table: Mapping[str, str]) -> dict[str, str]:
    """The literal table and what installed packages add through entry points."""
    group = _GROUPS.get(kind)
    return {**_installed(group, tuple(sys.path)), **table} if group else dict(table)


@cache
def _installed(group: str, path: tuple[str, ...]) -> dict[str, str]:
    """What packages on `path` add; cached, since every metadata file on it is read."""
    return {point.name: point.value for point in entry_points(group=group)}


def resolve(kind: str, name: str, table: Mapping[str, str], *, path: Path | None = None) -> Any:
    """Import what a plan names: a known name, or "module:object".

    Args:
        kind: for the error, such as "attack".
        name: as written in the plan.
        table: known names.
        path: a folder to find the user's modules in, first.

    Raises:
        UsageError: unknown name, no such module, no such object, or an import that raises.
    """
    # The metadata of every installed package is read for names that the table does not have, and only then.
    names = table if name in table else known(kind, table)
    if name not in names:
        _check_spelling(kind, name, names)
    module_name, _, attribute = names.get(name, name).partition(":")
    if path is not None and str(path) not in sys.path:
        sys.path.insert(0, str(path))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"Expected {kind} {name!r} to import, found {type(error).__name__}: {error}. "
            "Run from the folder that holds the module, or install it."
        ) from error
    if not hasattr(module, attribute):
        raise UsageError(
            f"Expected {module_name} to have {attribute!r}, found none: {nearest(attribute, public(module))}"
        )
    return getattr(module, attribute)


def _check_spelling(kind: str, name: str, names: Mapping[str, str]) -> None:
    """Refuse what is no known name and no module:object, with the right spelling of what was meant."""
    module, colon, attribute = name.partition(":")
    found = f"Expected a known {kind} or module:object, found {name!r}"
    if module.endswith(".py"):
        meant = module.removesuffix(".py").replace("/", ".").lstrip(".")
        raise UsageError(f"{found}. Name the module, not its file: {meant}:{attribute or 'object'}.")
    if colon:
        return
    first, dot, last = name.rpartition(".")
    if dot and first.replace(".", "").isidentifier() and last.isidentifier():
        raise UsageError(f"{found}: did you mean '{first}:{last}'?")
    raise UsageError(f"{found}: {nearest(name, names)}")


def public(module: object) -> list[str]:
    """Names of a module that do not start with an underscore."""
    return [name for name in vars(module) if not name.startswith("_")]


def build(kind: str, name: str, table: Mapping[str, str], options: Mapping[str, Any]) -> Any:
    """Make the named attack or engine from its recipe.

    Raises:
        UsageError: unknown name, an option that its class does not have (with the nearest right one), or
            a value of another type.
    """
    made = resolve(kind, name, table)
    if is_dataclass(made):
        _check_options(f"{kind} {name!r}", made, options)
    try:
        return made(**options)
    except TypeError as error:
        raise UsageError(f"Expected {kind} {name!r} to accept {dict(options)!r}, found: {error}.") from None


def _check_options(what: str, made: Any, options: Mapping[str, Any]) -> None:
    """Every option is a field, and of its type where that is a plain one, known before training."""
    right = {field.name for field in fields(made) if field.name not in _FIXED}
    types = get_type_hints(made)
    for option, value in options.items():
        if option not in right:
            raise UsageError(f"Expected a known option of {what}, found {option!r}: {nearest(option, right)}")
        wanted = types[option]
        if wanted in _PLAIN and type(value) not in _PLAIN[wanted]:
            raise UsageError(f"Expected {option} of {what} to be of type {wanted.__name__}, found {value!r}.")
