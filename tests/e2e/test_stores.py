"""An audit on a shared folder, at an address and on real disks: killed, doubled, full, read only."""

import multiprocessing
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from typer.testing import CliRunner

from dpaudit import commitment
from dpaudit.address import place_of
from dpaudit.cli import app
from dpaudit.commitment import SALT_NAME
from dpaudit.documents import contents
from dpaudit.errors import UsageError
from dpaudit.events import RunFinished, TrialLost
from dpaudit.record import RECORD_NAME, load
from dpaudit.run import run
from dpaudit.store import Store, StoreError, write_atomic
from tests.small_audit import OWN, essence, made, small_job

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/stores.md").read_text()
FILES = {"commitment.json", "plan.toml", "record.json", "report.html", "trials"}


@pytest.fixture
def job(tmp_path, monkeypatch):
    yield from small_job(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same audit in a folder, by one driver."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for job in small_job(tmp_path_factory.mktemp("undisturbed"), monkeypatch):
            assert len(made(run(job))) == 4
            out = job.out
    return out


def names(folder):
    return {path.name for path in folder.iterdir()}


def with_salt_of(first, out):
    write_atomic(out / SALT_NAME, contents(first / SALT_NAME))
    return out


def forked(job, before=lambda: None):
    """A driver in a process of its own."""

    def work():
        before()
        for _ in run(job):
            pass
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def whole(out, keys):
    """Every trial is there and readable, and nothing else is but the salt."""
    assert names(out / "trials") == {"salt.json", *(f"{key}.npz" for key in keys)}
    assert all(Store(out).load(key) is not None for key in keys)


@pytest.mark.parametrize("form", ["file://{folder}/remote", "memory://{own}"])
def test_a_record_at_an_address_is_that_of_a_folder(job, undisturbed, tmp_path, form):
    out = with_salt_of(undisturbed, place_of(form.format(folder=tmp_path, own=uuid.uuid4().hex)))
    keys = made(run(replace(job, out=out)))
    assert len(keys) == 4
    whole(out, keys)
    assert essence(load(out)) == essence(load(undisturbed))
    assert names(out) == FILES - {"report.html"}
    assert made(run(replace(job, out=out))) == []


def test_a_driver_that_is_killed_while_it_writes_goes_on_where_it_stopped(job, undisturbed, tmp_path):
    out = with_salt_of(undisturbed, place_of(f"file://{tmp_path}/remote"))

    def third():
        move, moved = LocalFileSystem.mv, []

        def killed(self, source, target, **options):
            moved.append(target)
            if sum(name.endswith(".npz") for name in moved) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            move(self, source, target, **options)

        LocalFileSystem.mv = killed

    process = forked(replace(job, out=out), third)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    kept = {path.name for path in (out / "trials").iterdir() if path.suffix == ".npz"}
    torn = {name for name in names(out / "trials") if name.startswith(".writing-")}
    assert len(kept) == 2 and len(torn) == 1 and not (out / RECORD_NAME).exists()
    again = made(run(replace(job, out=out)))
    assert len(again) == 2 and {f"{key}.npz" for key in again}.isdisjoint(kept)
    assert essence(load(out)) == essence(load(undisturbed))


@pytest.mark.parametrize("form", ["{folder}/shared", "file://{folder}/shared"])
def test_two_processes_that_begin_at_once_end_with_one_record(job, tmp_path, form):
    out = place_of(form.format(folder=tmp_path))
    barrier = multiprocessing.get_context("fork").Barrier(2)
    drivers = [forked(replace(job, out=out), barrier.wait) for _ in range(2)]
    for driver in drivers:
        driver.join(60)
    assert [driver.exitcode for driver in drivers] == [0, 0]
    record = load(out)
    assert [trial.status for trial in record.trials].count("lost") == 0 and len(record.trials) == 4
    whole(out, [trial.key for trial in record.trials])
    committed = commitment.read(out)
    assert record.provenance.commitment_sha256 == committed.sha256() and record.provenance.excluded == ()
    assert made(run(replace(job, out=out))) == []
    assert essence(load(out)) == essence(record)


def test_two_drivers_of_one_process_on_one_memory_end_with_one_record(job, undisturbed):
    out = with_salt_of(undisturbed, place_of(f"memory://{uuid.uuid4().hex}"))
    # They take turns event by event: training draws from the random stream that a process has one of.
    turn, ended = threading.Lock(), []

    def drive():
        events = run(replace(job, out=out))
        event = None
        while not isinstance(event, RunFinished):
            with turn:
                event = next(events)
        ended.append(event)

    drivers = [threading.Thread(target=drive) for _ in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join(60)
    assert len(ended) == 2
    whole(out, [trial.key for trial in load(out).trials])
    assert essence(load(out)) == essence(load(undisturbed))


def test_memory_is_not_shared_with_workers_and_that_is_said_before_anything_is_trained(job):
    compute = job.plan.compute.model_copy(update={"engine": "local"})
    plan = job.plan.model_copy(update={"compute": compute})
    with pytest.raises(UsageError, match="Expected the engine 'inline' for memory://a"):
        next(run(replace(job, plan=plan, out=place_of("memory://a"))))


def test_a_store_that_cannot_be_reached_is_said_before_anything_is_trained(job, tmp_path, monkeypatch):
    def refuse(self, path, **options):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(LocalFileSystem, "info", refuse)
    monkeypatch.setattr("dpaudit.trial.training_seed", None)
    with pytest.raises(StoreError, match=r"salt\.json, found: RuntimeError: no route to host"):
        list(run(replace(job, out=place_of(f"file://{tmp_path}/remote"))))


@pytest.fixture
def disk(tmp_path):
    """A file system of two megabytes, and what mounts it anew with other options."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", f"size=2m,{options}", "dpaudit-test", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = mount("rw")
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    yield folder, mount
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder, name, *, leave):
    free = shutil.disk_usage(folder).free
    (folder / name).write_bytes(bytes(free - leave))


@pytest.mark.parametrize("form", ["{folder}/out", "file://{folder}/out"])
def test_a_disk_that_is_full_costs_what_did_not_fit(job, undisturbed, disk, form):
    folder, _ = disk
    out = with_salt_of(undisturbed, place_of(form.format(folder=folder)))
    room = sum(path.stat().st_size for path in (undisturbed / "trials").glob("*.npz")) * 5 // 8
    fill(folder, "ballast", leave=room)
    events = []
    with pytest.raises(StoreError, match=r"record\.json, found: No space left on device"):
        for event in run(replace(job, out=out)):
            events.append(event)
            if len(made(events)) == 2 and not (folder / "more").exists():
                fill(folder, "more", leave=0)
    lost = [event.error for event in events if isinstance(event, TrialLost)]
    assert len(made(events)) == 2 and len(lost) == 2
    assert all("No space left on device" in error and "\n" not in error for error in lost)
    whole(out, made(events))
    assert not (out / RECORD_NAME).exists()
    (folder / "ballast").unlink()
    (folder / "more").unlink()
    assert len(made(run(replace(job, out=out)))) == 2
    assert essence(load(out)) == essence(load(undisturbed))


@pytest.mark.parametrize("form", ["{folder}/out", "file://{folder}/out"])
def test_a_disk_that_is_read_only_is_said_before_anything_is_trained_and_read(
    job, undisturbed, disk, monkeypatch, form
):
    folder, mount = disk
    shutil.copytree(undisturbed, folder / "done")
    done = mount("remount,ro")
    if done.returncode != 0:
        pytest.skip(f"mounting anew is not permitted here: {done.stderr.strip()}")
    monkeypatch.setattr("dpaudit.trial.training_seed", None)
    with pytest.raises(StoreError, match="found: Read-only file system"):
        list(run(replace(job, out=place_of(form.format(folder=folder)))))
    shown = CliRunner().invoke(app, ["show", form.format(folder=folder).replace("/out", "/done")])
    assert shown.exit_code == 0 and "own" in shown.output
    report = CliRunner().invoke(app, ["report", form.format(folder=folder).replace("/out", "/done")])
    assert isinstance(report.exception, StoreError) and "Read-only file system" in str(report.exception)


def commands():
    (block,) = re.findall(r"^```console\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for line in block.splitlines()]


def test_a_reader_can_follow_the_page(tmp_path, monkeypatch):
    """docs/stores.md, with a folder in the place of the bucket."""
    (tmp_path / "small_own.py").write_text(OWN)
    (tmp_path / "plan.toml").write_text(
        '[data]\ncanaries = 20\n[compute]\nengine = "inline"\ndevice = "cpu"\n[[targets]]\nname = "own"\n'
        'train = "small_own:fit"\nclaim = { epsilon = 8.0 }\n[attacks.loss-threshold]\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    address = f"file://{tmp_path}/bucket/audits/a"
    typed = [line.replace("s3://bucket/audits/a", address) for line in commands()]
    assert [shlex.split(line)[1] for line in typed] == ["run", "gate", "report", "show"]
    others = [f"dpaudit diff {address} {address}", f"dpaudit export model-card {address} --out card.md"]
    for line in [*typed, *others, f"dpaudit gate {address}/record.json --sarif gate.sarif"]:
        done = CliRunner().invoke(app, shlex.split(line)[1:])
        assert done.exit_code in (0, 3), (line, done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit), line
    assert {path.name for path in (tmp_path / "bucket/audits/a").iterdir()} == FILES
    assert (tmp_path / "page.html").stat().st_size > 10_000 and (tmp_path / "card.md").exists()
    assert f'"uri": "{address}/record.json"' in (tmp_path / "gate.sarif").read_text()
    sys.modules.pop("small_own")
