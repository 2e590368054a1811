"""What is going to be done: a readable TOML file, checked before anything is trained."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from dpaudit.errors import UsageError, nearest

BUILT_IN_TRAINING = ("plain", "opacus")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataPlan(_Section):
    """Where the records come from, and how many of them are canaries of which kind.

    For a model that is trained already, `source` is what it was trained on and `non_members` what it was not;
    `drawn` says that chance alone, record by record, decided which is which. No canaries can be planted then.
    `show_records` lets pictures of real records, and of what was rebuilt of them, into record and report.
    """

    source: str = "digits"
    non_members: str = ""
    drawn: bool = False
    canaries: int = Field(100, ge=0)
    canary_kind: str = "mislabelled"
    test_fraction: float = Field(0.1, gt=0.0, lt=0.9)
    show_records: bool = False

    @model_validator(mode="after")
    def _nothing_is_planted_afterwards(self) -> DataPlan:
        if self.non_members and self.canaries and "canaries" in self.model_fields_set:
            raise ValueError("canaries cannot be planted in a model that is trained: leave data.canaries out")
        if self.drawn and not self.non_members:
            raise ValueError("data.drawn is about data.non_members: name these, or leave it out")
        return self

    @property
    def planted(self) -> int:
        """How many canaries there are."""
        return 0 if self.non_members else self.canaries


class ComputePlan(_Section):
    """Where trials run."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    engine: str = "local"
    workers: int = Field(0, ge=0)
    timeout: float = Field(900.0, gt=0.0)


class DeclaredClaim(_Section):
    """A claim for training code without an Opacus accountant, or one that replaces the accountant's."""

    epsilon: float = Field(gt=0.0)


class TargetPlan(_Section):
    """One training recipe and its role in the audit; where it is `trained`, what loads the model."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    role: Literal["audited", "control"] = "audited"
    train: str
    trained: bool = False
    options: dict[str, Any] = {}
    claim: DeclaredClaim | None = None


class AttackPlan(_Section):
    """One attack: its share of alpha, the design of its bound, and its recipe.

    The design matters to attacks on final models: "runs" ranks the canaries of several runs, "one-run"
    guesses coins of the audited run alone; "auto" is the latter where the plan trains no other run.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    weight: float = Field(1.0, gt=0.0)
    design: Literal["auto", "runs", "one-run"] = "auto"

    @property
    def options(self) -> dict[str, Any]:
        """The recipe, without weight and design."""
        return dict(self.model_extra or {})


class AuditPlan(_Section):
    """A whole audit. Frozen and hashable through `digest`."""

    title: str = "Audit"
    seed: int = Field(0, ge=0)
    alpha: float = Field(0.05, gt=0.0, lt=0.5)
    delta: float = Field(1e-5, ge=0.0, lt=1.0)
    data: DataPlan = DataPlan()
    compute: ComputePlan = ComputePlan()
    recipe: dict[str, Any] = {}
    targets: tuple[TargetPlan, ...] = Field(min_length=1)
    attacks: dict[str, AttackPlan] = Field(min_length=1)
    gate: dict[str, Any] = {}

    @field_validator("attacks")
    @classmethod
    def _attacks_in_order(cls, value: dict[str, AttackPlan]) -> dict[str, AttackPlan]:
        return dict(sorted(value.items()))

    @model_validator(mode="after")
    def _targets_are_distinct(self) -> AuditPlan:
        names = [target.name for target in self.targets]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"target {double[0]!r} is there twice: give each its own name")
        loaded = [target.name for target in self.targets if target.trained]
        if loaded and not self.data.non_members:
            raise ValueError(
                f"target {loaded[0]!r} is trained already: name the records that it was not trained on "
                "in data.non_members"
            )
        if not any(target.role == "audited" for target in self.targets):
            raise ValueError('no target has role = "audited": mark the model whose claim is judged')
        return self

    @property
    def shadows(self) -> int:
        """Shadow models beside each target: as many as the most demanding attack asks for."""
        wanted = [attack.options.get("shadows", 0) for attack in self.attacks.values()]
        for number in wanted:
            if not isinstance(number, int) or number < 0:
                raise UsageError(f"Expected shadows={number!r} to be a whole number of models, 0 or more.")
        return max(wanted, default=0)

    def one_run(self, attack: str) -> bool:
        """Whether an attack on final models is judged by the audited run alone."""
        design = self.attacks[attack].design
        return design == "one-run" or (design == "auto" and not self.shadows)

    def options_of(self, target: TargetPlan) -> dict[str, Any]:
        """Keyword arguments of a target's training function; `recipe` applies to the built-in ones."""
        shared = self.recipe if target.train in BUILT_IN_TRAINING else {}
        return {**shared, **target.options}

    def digest(self) -> str:
        """SHA-256 of the plan's content, whatever its layout in the file."""
        return hashlib.sha256(canonical(self.model_dump(mode="json")).encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the form that is hashed. TOML's dates and times become text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def default_toml() -> str:
    """The plan that ships with the package."""
    return (files("dpaudit") / "default.toml").read_text(encoding="utf-8")


def read(path: Path | None, overrides: Sequence[str] = ()) -> tuple[AuditPlan, str]:
    """Read a plan and apply `key.sub=value` overrides.

    Args:
        path: the TOML file; None for the default plan.
        overrides: such as "attacks.lira.shadows=4"; values are TOML, or plain text.

    Returns:
        The plan, and its text as found.

    Raises:
        UsageError: no such file, not TOML, or not a plan.
    """
    name = str(path) if path else "the default plan"
    try:
        text = path.read_text(encoding="utf-8") if path else default_toml()
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise UsageError(
            f"Expected a plan at {path}, found nothing. Write one with `dpaudit init {path}`."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"Expected {path} to be a readable text file, found: {error}. Check the path."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"Expected {name} to be TOML, found: {error}. Repair that line.") from None
    for override in overrides:
        _override(document, override)
    return parse(document, name), text


def parse(document: Mapping[str, Any], name: str = "the plan") -> AuditPlan:
    """Validate a document; the first thing wrong is named with what was expected.

    Raises:
        UsageError: unknown key (with the nearest right one), wrong type, or value out of range.
    """
    try:
        return AuditPlan.model_validate(document)
    except ValidationError as error:
        # A misspelt key is also a missing one: the unknown name says more.
        wrong = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        raise UsageError(_explain(wrong[0], name)) from None


def _explain(error: ErrorDetails, name: str) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        return f"Expected a known key in {name}, found {where!r}: {nearest(str(key), _keys_at(parents))}"
    if error["type"] == "missing":
        return (
            f"Expected {name} to have {where}, found nothing. Add it; `dpaudit init` writes a complete plan."
        )
    message = error["msg"].removeprefix("Value error, ")
    if not where:
        return f"Expected {name} to be right: {message}."
    found = "" if isinstance(error["input"], dict) else f", found {error['input']!r}"
    return f"Expected {where} in {name} to be right{found}: {message}."


def _keys_at(parents: Sequence[str | int]) -> list[str]:
    """Right keys of the section at `parents`."""
    sections: dict[str, type[BaseModel]] = {"data": DataPlan, "compute": ComputePlan, "targets": TargetPlan}
    section = sections.get(str(parents[0]), AuditPlan) if parents else AuditPlan
    return list(DeclaredClaim.model_fields if parents and parents[-1] == "claim" else section.model_fields)


def _override(document: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise UsageError(f"Expected --set key=value, found {override!r}. Write for example --set seed=1.")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    node: Any = document
    for part in parents:
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise UsageError(
                    f"Expected {key!r} to count from 0 to {len(node) - 1}, found {part!r}. "
                    "Tables in double brackets go by number."
                )
            node = node[int(part)]
        else:
            node = node.setdefault(part, {})
        if not isinstance(node, (dict, list)):
            raise UsageError(f"Expected {key!r} to name a key of the plan, found that {part!r} is a value.")
    if isinstance(node, list):
        raise UsageError(f"Expected --set {key!r} to name a key inside a table, such as targets.0.role.")
    node[last] = value
