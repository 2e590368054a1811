"""Check the record of the reduced default audit: what must be refuted is, what must not is not."""

import sys
from pathlib import Path

from dpaudit.record import load

record = load(Path(sys.argv[1]))
exit_code = int(sys.argv[2])
verdicts = {target.name: target.verdict.status.value for target in record.targets}
private = next(target for target in record.targets if target.name == "private")
step = max(e.epsilon_lower or 0.0 for e in private.estimates if e.source == "step-canary")
claim = private.claim.epsilon if private.claim else float("nan")
print(f"verdicts {verdicts}, exit {exit_code}, step canary {step:.2f} of a claimed {claim:.2f}")
expected = {"private": "NOT REFUTED", "plain": "REFUTED", "broken": "REFUTED"}
lost = [trial.key for trial in record.trials if trial.status == "lost"]
page = Path(sys.argv[1]) / "report.html"
if verdicts != expected or exit_code != 0 or record.exit_code != 0 or lost or step < 0.8 * claim:
    sys.exit(f"Expected {expected}, exit 0, no lost trial and a bound of at least 0.8 of the claim.")
if not page.stat().st_size:
    sys.exit(f"Expected a report at {page}.")
