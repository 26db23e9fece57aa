"""Broken rules that the tests of reconciliation must notice.

``python -m tests.mutants.mutants [name…]`` copies the packages and the tests to a temporary folder, breaks
one rule there at a time, and runs the property tests and the example tests against the copy. It prints
which of them noticed, and ends with status 1 if a mutant survived.

A test suite that passes says little; one that fails for each of these says that the rule is held. The
table replaces exact source text, which must occur exactly once: a mutant whose text has gone must be written anew.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("server", "sync", "storage", "media", "fixtures", "tests", "pyproject.toml")
PROPERTIES = ("tests/sync/test_merge_properties.py", "tests/sync/test_ingest_properties.py")
EXAMPLES = (
    "tests/sync/test_rules.py",
    "tests/sync/test_status_rules.py",
    "tests/sync/test_rules_of_ingest.py",
    "tests/unit/test_tablet.py",
)
#: PostgreSQL runs the same merge; a broken rule shows on SQLite as well.
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=unshrunk", "-k", "not postgresql")
SECONDS = 240


class Mutant(NamedTuple):
    """One broken rule: ``old`` becomes ``new`` in ``file``; ``more`` holds further replacements."""

    name: str
    file: str
    old: str
    new: str
    more: tuple[tuple[str, str, str], ...] = ()


MERGE, BATCH, VALUES = "sync/merge.py", "sync/batch.py", "sync/values.py"
SNAPSHOT, VIEW, TABLET = "sync/snapshot.py", "sync/view.py", "fixtures/tablet.py"

MUTANTS = [
    Mutant(
        "drop own-write memory",
        MERGE,
        "if own is not None and own.rev > push.base:",
        "if own is not None and own.rev < 0:",
    ),
    Mutant(
        "ignore the shown value",
        MERGE,
        "    if own is not None and own.rev > push.base:",
        "    if own is None:\n        return True\n    if own is not None:",
    ),
    Mutant("< for <= in supersession", MERGE, "or other.rev <= edit.base:", "or other.rev < edit.base:"),
    Mutant("no supersession", MERGE, "or other.rev <= edit.base:", "or other.rev < 0:"),
    Mutant("last writer wins", MERGE, "or other.rev <= edit.base:", "or True:"),
    Mutant(
        "trust a future base",
        BATCH,
        "parsed[0] != self.incarnation or parsed[1] > (job.rev if job else 0)",
        "parsed[0] != self.incarnation",
    ),
    Mutant(
        "trust a foreign base",
        BATCH,
        "parsed is None or parsed[0] != self.incarnation or parsed[1]",
        "parsed is None or parsed[1]",
    ),
    Mutant(
        "hash with sync",
        VALUES,
        '        body = body.replace(envelope, b"", 1)\n',
        "        pass\n",
        ((VALUES, '    document.pop("sync", None)\n', ""),),
    ),
    Mutant("offset over echoes", MERGE, "_times(push, candidates)", "_times(push, push.scopes)"),
    Mutant(
        "no correction of a slow clock",
        MERGE,
        "offset = received - push.sent_at",
        "offset = min(0, received - push.sent_at)",
    ),
    Mutant("no clamp", MERGE, "{name: min(time + offset, received) for", "{name: time + offset for"),
    Mutant(
        "Aborted as a mere rank",
        SNAPSHOT,
        "    if folded == ABORTED:\n        return True\n",
        "    if folded == ABORTED:\n"
        '        scopes["status"] = Part(_pair(head, "status", "abandonReason"), 3)\n'
        "        return False\n",
    ),
    Mutant(
        "status not ignored below a reopen",
        MERGE,
        'if name == "status" and push.install != SERVER and push.base < job.reopened:',
        'if name == "never" and push.base < job.reopened:',
    ),
    Mutant(
        "Aborted not ignored below a reopen",
        MERGE,
        "elif push.install != SERVER and push.base < job.reopened:",
        "elif push.base < 0:",
    ),
    Mutant(
        "legacy always overwrites",
        MERGE,
        "    base = push.base\n",
        "    base = job.rev if push.legacy else push.base\n",
    ),
    Mutant(
        "legacy echo of former values missing",
        MERGE,
        "    if not scope.shown and not scope.unshown:\n        return True\n",
        "    if scope is not None:\n        return True\n",
    ),
    Mutant(
        "phase outside the value",
        VALUES,
        "return phase == other_phase and (value == other or",
        "return (value == other or",
        ((VALUES, 'hasher.update(b"%d" % phase)', 'hasher.update(b"0")'),),
    ),
    Mutant(
        "no union of ids",
        VIEW,
        "    if not extra_values and not extra_notes:\n        return winner.value\n",
        "    if scope is not None:\n        return winner.value\n",
    ),
    Mutant(
        "no status rank",
        VIEW,
        "return (edit.phase, edit.ts, edit.install)",
        "return (edit.ts, edit.phase, edit.install)",
    ),
    Mutant(
        "null metadata treated as absent",
        SNAPSHOT,
        'scopes["meta:" + key] = Part(bytes(raw))',
        'scopes.update({} if bytes(raw) == b"null" else {"meta:" + key: Part(bytes(raw))})',
    ),
    Mutant(
        "one rev per group commit",
        BATCH,
        "merged = merge.apply(job, push)",
        "merged = merge.apply(replace(job, rev=job.rev - 1) if working.stored and job.rev > 1 else job, push)",
    ),
    Mutant(
        "minimal answer raises base",
        TABLET,
        'applied = not job.unsent and ("metadata" in reply or said.get("inSync") is True)',
        "applied = not job.unsent",
    ),
    Mutant(
        "pull over unsent edits",
        TABLET,
        "        if job is not None and job.unsent:\n            raise UnsentEdits(client_job_id)\n",
        "",
        (
            (
                TABLET,
                "        if job.unsent:\n            return Answer(status)",
                "        if False:\n            pass",
            ),
        ),
    ),
    Mutant(
        "If-Match before replay",
        BATCH,
        "        replayed = self._replay(item, working)\n",
        "        if item.if_match is not None:\n"
        "            self._check_match(item.if_match, job)\n"
        "        replayed = self._replay(item, working)\n",
    ),
    Mutant(
        "a late push passes over nothing",
        MERGE,
        "    if name in push.stated:\n        return False\n",
        "",
    ),
    Mutant("confirm is an echo", MERGE, "    if name in push.confirm:\n        return True\n", ""),
    Mutant("absence deletes photos of siblings", VIEW, "if extra:", "if extra and False:"),
]


def break_rule(folder: Path, mutant: Mutant) -> None:
    """Apply ``mutant`` to the copy.

    Raises:
        LookupError: its text does not occur exactly once.
    """
    for file, old, new in ((mutant.file, mutant.old, mutant.new), *mutant.more):
        path = folder / file
        source = path.read_text(encoding="utf-8")
        if source.count(old) != 1:
            raise LookupError(f"{source.count(old)} places in {file} read {old!r}")
        path.write_text(source.replace(old, new), encoding="utf-8")


def first_failure(folder: Path, tests: tuple[str, ...]) -> str | None:
    """The first of ``tests`` that fails against the copy; None if all pass."""
    present = [test for test in tests if (folder / test).exists()]
    try:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", *OPTIONS, *present],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "(did not end)"
    if run.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) \S*?([^:/\s]+?)(?:::runTest)?(?:\s|$)", run.stdout, re.MULTILINE)
    if run.returncode != 1 or found is None:
        raise SystemExit(f"the tests did not run:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return found[1]


def try_mutant(mutant: Mutant) -> tuple[str | None, str | None]:
    """The first property and the first example that notice."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for item in COPIED:
            source = ROOT / item
            if source.is_dir():
                shutil.copytree(source, folder / item, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, folder / item)
        break_rule(folder, mutant)
        return first_failure(folder, PROPERTIES), first_failure(folder, EXAMPLES)


def main(names: list[str]) -> int:
    """Try the mutants of these names, or all; answers the exit status."""
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        raise SystemExit(f"no such mutant: {', '.join(sorted(unknown))}")
    survived = []
    for mutant in MUTANTS:
        if names and mutant.name not in names:
            continue
        try:
            by_property, by_example = try_mutant(mutant)
        except LookupError as stale:
            print(f"{mutant.name:38} cannot be made: {stale}", flush=True)
            survived.append(mutant.name)
            continue
        print(f"{mutant.name:38} {by_property or '-':70} {by_example or '-'}", flush=True)
        if by_property is None and by_example is None:
            survived.append(mutant.name)
    print(f"survived: {', '.join(survived)}" if survived else "every mutant was caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
