"""Scripts written for Opacus before 1.0, answered with the present form of their own loop.

Until 0.15 an engine was made of the module and `attach`ed to an optimizer; since 1.0 (2021) it takes and
returns module, optimizer and data loader (opacus/README, "Migration guide").
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

_OLD = {"batch_size", "sample_size", "sample_rate", "alphas", "secure_rng", "target_epsilon", "target_delta",
        "epochs", "noise_multiplier", "max_grad_norm", "module", "poisson"}  # fmt: skip
_ENGINE = "privacy_engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """An old use and its present form.

    Attributes:
        line: where the engine is made.
        old: that call, as written.
        new: the lines that take its place.
        further: other lines of the script and what they become.
    """

    line: int
    old: str
    new: str
    further: tuple[tuple[int, str, str], ...]


def recognise(source: str) -> Present | None:
    """The present form of a script's own engine; None if it is not written for Opacus before 1.0."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    engine = next((call for call in calls if _called(call) == "PrivacyEngine" and _old(call)), None)
    if engine is None:
        return None
    attach = next((call for call in calls if _called(call) == "attach" and len(call.args) == 1), None)
    return Present(
        line=engine.lineno,
        old=_text(engine),
        new=_present(tree, engine, attach),
        further=tuple(_further(calls, attach, _assigned(tree, engine) or _ENGINE)),
    )


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _old(call: ast.Call) -> bool:
    """Whether the call has arguments that only the old engine took."""
    return bool(call.args) or any(word.arg in _OLD for word in call.keywords)


def _text(node: ast.AST | None) -> str:
    return ast.unparse(node) if node is not None else ""


def _present(tree: ast.AST, engine: ast.Call, attach: ast.Call | None) -> str:
    """`make_private`, filled with the script's own expressions."""
    given = {word.arg: _text(word.value) for word in engine.keywords if word.arg}
    module = given.get("module") or (_text(engine.args[0]) if engine.args else "model")
    optimizer = _text(attach.args[0]) if attach is not None else "optimizer"
    loader = _loader(tree)
    name = _assigned(tree, engine) or _ENGINE
    lines = [
        f'{name} = PrivacyEngine(accountant="prv")',
        f"{_plain(module, 'model')}, {_plain(optimizer, 'optimizer')}, {loader} = "
        f"{name}.{'make_private_with_epsilon' if 'target_epsilon' in given else 'make_private'}(",
        f"    module={module},",
        f"    optimizer={optimizer},",
        f"    data_loader={loader},",
    ]
    names: tuple[str, ...]
    if "target_epsilon" in given:
        names = ("target_epsilon", "target_delta", "epochs", "max_grad_norm")
    else:
        names = ("noise_multiplier", "max_grad_norm")
    lines += [f"    {word}={given.get(word, '...')}," for word in names]
    return "\n".join([*lines, ")"])


def _plain(expression: str, otherwise: str) -> str:
    """A name that can be assigned to."""
    return expression if expression.isidentifier() else otherwise


def _assigned(tree: ast.AST, call: ast.Call) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and node.value is call and isinstance(node.targets[0], ast.Name):
            return node.targets[0].id
    return ""


def _loader(tree: ast.AST) -> str:
    """The data loader that is trained on: the first that is made and not for testing."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = _called(node.value).endswith("DataLoader")
            names += [target.id for target in node.targets if isinstance(target, ast.Name) and made]
    training = [name for name in names if not any(word in name.lower() for word in ("test", "val", "eval"))]
    return (training or names or ["train_loader"])[0]


def _further(calls: list[ast.Call], attach: ast.Call | None, engine: str) -> list[tuple[int, str, str]]:
    """What else has another form now."""
    memory = "opacus.utils.batch_memory_manager.BatchMemoryManager"
    present = {
        "virtual_step": f"optimizer.step(), within a {memory}",
        "convert_batchnorm_modules": "opacus.validators.ModuleValidator.fix(model)",
        "DPModelInspector": "opacus.validators.ModuleValidator.validate(model)",
    }
    found = []
    for call in calls:
        name = _called(call)
        if call is attach:
            found.append((call.lineno, _text(call), "nothing: make_private returned the optimizer"))
        elif name == "get_privacy_spent":
            delta = _text(call.args[0]) if call.args else _delta(call)
            found.append((call.lineno, _text(call), f"{engine}.get_epsilon({delta}), epsilon alone"))
        elif name in present:
            found.append((call.lineno, _text(call), present[name]))
    return sorted(found)


def _delta(call: ast.Call) -> str:
    found = (_text(word.value) for word in call.keywords if word.arg and "delta" in word.arg)
    return next(found, "delta")


def describe(present: Present, name: str) -> str:
    """The answer in words, with the code to paste."""
    parts = [
        f"{name} is written for Opacus before 1.0: line {present.line}, {present.old}.",
        "The present form of its loop:",
        "",
        *(f"    {line}" for line in present.new.splitlines()),
        "",
    ]
    parts += [f"  line {line}: {old} becomes {new}" for line, old, new in present.further]
    return "\n".join(parts)
