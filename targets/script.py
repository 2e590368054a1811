"""An unmodified training script or module, run under observation as the interpreter would run it."""

from __future__ import annotations

import hashlib
import os
import runpy
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import torch

from dpaudit.canary import Canaries
from dpaudit.ending import Ended
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, Finding, Note
from dpaudit.protocols import StepAttack, StopTraining, View
from dpaudit.targets.broken import plant
from dpaudit.targets.bypass import parameters_of
from dpaudit.targets.observe import STREAM, Observation, observe

_DRAWS = ("normal", "randn", "randn_like", "rand", "rand_like")
_IN_PLACE = ("normal_", "uniform_", "exponential_", "cauchy_", "geometric_", "log_normal_")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptTarget:
    """A training script.

    Attributes:
        name: for reports.
        path: file, or dotted name of a module.
        module: whether it is the latter, as after `python -m`.
        arguments: its command line.
        fault: planted in every private optimizer; None leaves them alone.
    """

    name: str
    path: str
    module: bool = False
    arguments: tuple[str, ...] = ()
    fault: str | None = None

    def run(
        self,
        attacks: Sequence[StepAttack],
        *,
        seed: int,
        delta: float | None = None,
        declared: bool = False,
        stdout: TextIO | None = None,
    ) -> tuple[View, Ended]:
        """Run the script to its end, however it ends.

        Args:
            attacks: that ride along.
            seed: of the attacks' own random streams; the script's are left alone.
            delta: of the claim; None takes the one that the script asked its accountant for.
            declared: whether an epsilon was claimed for whatever the script does.
            stdout: where its output goes; None leaves that alone.

        Raises:
            UsageError: no such file or module.
        """
        self._check()
        start = time.perf_counter()
        faulty = (lambda optimizer: plant(optimizer, self.fault or "")) if self.fault else None
        hands = _Hands()
        # Not the stream that a script with the same seed would draw from.
        rng = np.random.default_rng([seed, STREAM])
        with ExitStack() as stack:
            if stdout is not None:
                stack.enter_context(redirect_stdout(stdout))
            stack.enter_context(warnings.catch_warnings())
            # Of passes that are made for the audit; the script's own warnings are its author's to read.
            warnings.filterwarnings(
                "ignore", message="Full backward hook is firing", module=r"dpaudit\.targets\."
            )
            seen = stack.enter_context(observe(attacks, _NOBODY, rng, prepare=faulty))
            stack.enter_context(hands.watch(seen))
            ended = self._run()
        at = delta if delta is not None else seen.books.last_delta(1e-5)
        view = _view(seen, hands, at, declared, time.perf_counter() - start)
        return (replace(view, stopped=ended.step) if ended.step is not None else view), ended

    def _check(self) -> None:
        if not self.module and not Path(self.path).is_file():
            raise UsageError(
                f"Expected a script at {self.path}, found nothing. Name a file, or use -m for a module."
            )

    def _run(self) -> Ended:
        with _as_main(self.path, self.module, self.arguments):
            try:
                if self.module:
                    runpy.run_module(self.path, run_name="__main__", alter_sys=True)
                else:
                    runpy.run_path(self.path, run_name="__main__")
            except SystemExit as left:
                return _left(left, self.path)
            except StopTraining as stopped:
                return Ended(how="stopped", step=stopped.step, message=stopped.reason)
            except KeyboardInterrupt:
                return Ended(how="interrupted", code=130, message="it was interrupted")
            except ImportError as error:
                if self.module and error.__traceback__ is not None and _depth(error.__traceback__) <= _OWN:
                    raise UsageError(
                        f"Expected a module {self.path!r}, found: {error}. Run where it can be imported."
                    ) from None
                return _crashed(error, self.path)
            except BaseException as error:
                return _crashed(error, self.path)
        return Ended(how="finished")


_OWN = 3
_NOBODY = Canaries(
    x=np.zeros((0, 0)),
    y=np.zeros(0, dtype=np.int64),
    member=np.zeros(0, dtype=np.bool_),
    canary=np.zeros(0, dtype=np.bool_),
    test_x=np.zeros((0, 0)),
    test_y=np.zeros(0, dtype=np.int64),
)


@contextmanager
def _as_main(path: str, module: bool, arguments: Sequence[str]) -> Iterator[None]:
    """`sys.argv` and `sys.path` as the interpreter sets them, the folder and both put back afterwards."""
    argv, search, folder = list(sys.argv), list(sys.path), Path.cwd()
    sys.argv[:] = [path, *arguments]
    sys.path.insert(0, str(folder) if module else str(Path(path).resolve().parent))
    try:
        yield
    finally:
        sys.argv[:], sys.path[:] = argv, search
        if folder.exists():
            os.chdir(folder)


def _left(left: SystemExit, path: str) -> Ended:
    """`sys.exit`: nothing, 0 or None is an orderly end; a text is printed and means 1."""
    if left.code is None or left.code == 0:
        return Ended(how="finished")
    code = left.code if isinstance(left.code, int) else 1
    if not isinstance(left.code, int):
        print(left.code, file=sys.stderr)
    return Ended(
        how="crashed",
        code=code,
        message=f"exit code {code}" + (f" ({left.code})" if not isinstance(left.code, int) else ""),
        where=_place(left, path),
    )


def _crashed(error: BaseException, path: str) -> Ended:
    """Print the traceback from the script on, as the interpreter would, and name its line."""
    frames = error.__traceback__
    while frames is not None and _ours(frames):
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)
    words = f"{type(error).__name__}: {error}".splitlines()
    return Ended(how="crashed", code=1, message=words[0] if words else "", where=_place(error, path))


def _ours(frames: TracebackType) -> bool:
    name = frames.tb_frame.f_code.co_filename
    return name == __file__ or "runpy" in Path(name).name or name == "<frozen runpy>"


def _place(error: BaseException, path: str) -> str:
    """File and line in the user's own code: the deepest frame beside the script, else the deepest of all."""
    frames = traceback.extract_tb(error.__traceback__)
    beside = str(Path(path).resolve().parent)
    own = [
        f for f in frames if f.filename == path or Path(f.filename).resolve().parent.is_relative_to(beside)
    ]
    own = [f for f in own if "site-packages" not in f.filename and f.filename != __file__]
    chosen = own or [f for f in frames if f.filename != __file__]
    return f"{Path(chosen[-1].filename).name}:{chosen[-1].lineno}" if chosen else ""


def _depth(frames: TracebackType) -> int:
    return len(traceback.extract_tb(frames))


class _Hands:
    """Random tensors of the shape of weights that are drawn between updates, and seeds that are set.

    Attributes:
        drawn: calls that returned such a tensor.
        seeds: in order.
    """

    def __init__(self) -> None:
        self.drawn = 0
        self.seeds: list[int] = []

    @contextmanager
    def watch(self, seen: Observation) -> Iterator[None]:
        """Count calls of torch's random functions; they run unchanged."""
        places: list[tuple[Any, str]] = [(torch, name) for name in _DRAWS]
        places += [(torch.Tensor, name) for name in _IN_PLACE]
        originals = [(owner, name, getattr(owner, name)) for owner, name in places]
        library: Any = torch
        seeding: Callable[[int], Any] = library.manual_seed

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                result = function(*args, **kwargs)
                # Before the first update, random numbers are initial weights.
                self.drawn += any(
                    _like_weights(result, plain.optimizer) for plain in seen.bypass.plain.values()
                )
                return result

            return call

        @wraps(seeding)
        def seeded(seed: int) -> Any:
            self.seeds.append(int(seed))
            return seeding(seed)

        for owner, name, original in originals:
            setattr(owner, name, counted(original))
        library.manual_seed = seeded
        try:
            yield
        finally:
            library.manual_seed = seeding
            for owner, name, original in originals:
                setattr(owner, name, original)


def _like_weights(drawn: Any, optimizer: torch.optim.Optimizer) -> bool:
    """Whether a random tensor could be noise for the weights of an optimizer, one by one or all in one."""
    if not isinstance(drawn, torch.Tensor):
        return False
    weights = parameters_of(optimizer)
    return any(drawn.shape == p.shape for p in weights) or drawn.numel() == sum(p.numel() for p in weights)


def _view(seen: Observation, hands: _Hands, delta: float, declared: bool, seconds: float) -> View:
    weights = _weights(seen)
    return View(
        canaries=_NOBODY,
        scores=np.zeros((0, 0)),
        test_accuracy=float("nan"),
        train_accuracy=float("nan"),
        n_parameters=sum(p.numel() for p in weights),
        claim=seen.claim(delta),
        ledger=seen.ledger,
        accounted=seen.accounted(),
        evidence=(*seen.evidence(), *_seed_notes(hands)),
        findings=(*seen.findings(delta), *_without_privacy(seen, hands, declared)),
        weights_sha256=_digest(weights),
        seconds=seconds,
        spending=seen.spending(delta),
        place=seen.place,
    )


def _without_privacy(seen: Observation, hands: _Hands, declared: bool) -> Iterator[Finding]:
    """Training that never was private although an epsilon is claimed for it.

    Whoever adds noise by hand draws random numbers at every step; such a script is not accused here.
    """
    plain = sum(each.steps for each in seen.bypass.plain.values())
    if not declared or seen.bypass.private_steps or not plain or hands.drawn >= plain:
        return
    engine = "a PrivacyEngine was made but none of its steps" if seen.engines else "no PrivacyEngine was made"
    yield Finding(
        check="private steps",
        where=" and ".join(each.words for each in seen.bypass.plain.values()),
        expected="noisy steps behind the claim",
        measured=f"{plain} optimizer steps without clipping and noise; {engine}",
        epsilon=float("inf"),
        remedy="Train with the optimizer and the loader that PrivacyEngine.make_private returns.",
        source="ledger",
        access=Access.LEDGER,
    )


def _seed_notes(hands: _Hands) -> Iterator[Note]:
    if hands.seeds:
        yield Note(
            check="seed in the script",
            where=f"torch.manual_seed({hands.seeds[-1]})",
            measured=f"set {len(hands.seeds)} times" if len(hands.seeds) > 1 else "set once",
            meaning="Noise and batches can be drawn again by whoever knows it. Leave it out for the model "
            "that is released.",
            source="ledger",
            access=Access.LEDGER,
        )


def _weights(seen: Observation) -> list[torch.nn.Parameter]:
    """Everything that any optimizer updated, each once, in the order of the optimizers."""
    groups = [optimizer.params for optimizer in seen.optimizers]
    groups += [parameters_of(each.optimizer) for each in seen.bypass.plain.values()]
    return list({id(p): p for group in groups for p in group}.values())


def _digest(weights: Sequence[torch.nn.Parameter]) -> str:
    digest = hashlib.sha256()
    for weight in weights:
        array = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(array.tobytes())
    return digest.hexdigest() if weights else ""
