"""Batches that are not what the accountant is told, and accountants that are told something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.targets.broken.loop import Loop


class SeededSampler(Loop):
    """The loader has a generator with a seed in the code, which Opacus takes over for its Poisson draws."""

    def new_loader(self) -> DataLoader[Any]:
        """A reproducible loader."""
        generator = torch.Generator().manual_seed(7)
        return DataLoader(self.dataset(), batch_size=self.batch_size, shuffle=True, generator=generator)


class ShuffledBatches(Loop):
    """Poisson sampling is switched off; the accountant goes on as before."""

    def make_private(self) -> None:
        """With the switch."""
        self.private = {**self.private, "poisson_sampling": False}
        super().make_private()


class OwnLoader(Loop):
    """Training goes on with the loader that was handed in, not with the one that came back."""

    def make_private(self) -> None:
        """Keep the old one."""
        own = self.loader
        super().make_private()
        self.loader = own


class HalfTheRate(Loop):
    """The accountant is told half the sample rate."""

    share = 0.5

    def make_private(self) -> None:
        """Attach another hook."""
        super().make_private()
        rate = self.share / len(self.loader)
        self.optimizer.attach_step_hook(self.engine.accountant.get_optimizer_hook_fn(sample_rate=rate))


class TenthOfTheRate(HalfTheRate):
    """The accountant is told a tenth of the sample rate."""

    share = 0.1


class HalfTheSteps(Loop):
    """The accountant is told every second step."""

    def make_private(self) -> None:
        """Count."""
        super().make_private()
        hook, calls = self.optimizer.step_hook, iter(range(10**9))
        self.optimizer.attach_step_hook(lambda optimizer: next(calls) % 2 or hook(optimizer))


class MissedEpoch(Loop):
    """The accountant is attached after the first epoch."""

    def make_private(self) -> None:
        """Detach it."""
        super().make_private()
        self.hook, self.optimizer.step_hook = self.optimizer.step_hook, None

    def finished(self, epoch: int) -> bool:
        """Attach it again."""
        self.optimizer.step_hook = self.hook
        return False

    hook: Any = None


class _SharedSeed(UniformWithReplacementSampler):  # type: ignore[misc]
    """Two workers draw from their halves of the records with one seed."""

    def __iter__(self) -> Iterator[list[int]]:
        half = self.num_samples // 2
        for _ in range(self.steps):
            mask = torch.rand(half, generator=self.generator) < self.sample_rate
            index = mask.nonzero()[:, 0]
            yield torch.cat([index, half + index]).tolist()


class WorkersShareASeed(Loop):
    """Two workers draw from their halves of the records with one seed: their masks are equal."""

    def make_private(self) -> None:
        """Give the loader that came back another sampler."""
        super().make_private()
        known = self.loader.batch_sampler
        sampler = _SharedSeed(num_samples=known.num_samples, sample_rate=known.sample_rate, generator=None)
        collate = self.loader.collate_fn
        self.loader = DataLoader(self.dataset(), batch_sampler=sampler, collate_fn=collate)


class EachRecordFourTimes(Loop):
    """Rare records are oversampled: each is in the data four times and clipped four times."""

    def dataset(self) -> Any:
        """Four copies."""
        return TensorDataset(self.x.repeat(4, *[1] * (self.x.dim() - 1)), self.y.repeat(4))
