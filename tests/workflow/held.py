"""`python -m tests.workflow.held TASK GATE ...`: `hpcfit ...` whose tasks wait at a gate, as crew_tasks.TASK says."""

import sys
from functools import partial
from pathlib import Path

from hpcfit.cli import main
from hpcfit.workflow.cluster.crew import Crew
from tests.conftest import ROOT
from tests.workflow import crew_tasks


def held(task: str, gate: crew_tasks.Gate, *arguments) -> list[str]:
    """The command."""
    return [sys.executable, "-m", "tests.workflow.held", task, *map(str, (gate.folder, *arguments))]


if __name__ == "__main__":
    _, name, folder, *arguments = sys.argv
    sys.argv = [str(ROOT / "hpcfit/__main__.py"), *arguments]  # it is written into what is made
    task, gate, completed = getattr(crew_tasks, name), crew_tasks.Gate(Path(folder)), Crew.completed

    def completed_when_open(crew, work, items, *, title="", **options):
        work = work if isinstance(work, partial) else partial(work)
        waits = partial(task, gate, work.func, *work.args, **work.keywords)
        return completed(crew, waits, items, title=title or work.func.__name__, **options)

    Crew.completed = completed_when_open
    main()
