"""`python -m tests.workflow.known hpcfit FILE ...`: `hpcfit ...` whose monitor writes its place to FILE.

The place has the certificates, with which a test can speak to the scheduler of the run; nobody else can.
"""

import pickle
import sys
from pathlib import Path

from hpcfit.cli import main
from hpcfit.workflow.pages import monitor
from tests.conftest import ROOT

if __name__ == "__main__":
    _, _, file, *arguments = sys.argv
    sys.argv = [str(ROOT / "hpcfit/__main__.py"), *arguments]  # it is written into what is made
    choose_place = monitor.choose_place

    def written(*words, **options):
        place, part = choose_place(*words, **options), Path(f"{file}.part")
        part.write_bytes(pickle.dumps(place))
        part.rename(file)
        return place

    monitor.choose_place = written
    main()
