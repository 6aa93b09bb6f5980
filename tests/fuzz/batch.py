"""A process that reads mutated inputs one after another and says what came of each, a line of JSON an input.

    python -m tests.fuzz.batch FOLDER  <  lines of "NAME<tab>SEED"

Whoever started it sees by the line that is missing which input ended or hung the process.
"""

import faulthandler
import json
import os
import resource
import shutil
import sys
import traceback
import zlib
from pathlib import Path

from hpcfit import log
from hpcfit.errors import InputError
from tests.fuzz.formats import FORMATS, Format, Found, confirmed, same
from tests.fuzz.mutations import mutated

HANGS = 120  # seconds after which an input is given up: nothing that is measured, only an end
LARGEST = 1 << 20  # kB of memory beyond what the process had when it began; inputs are a few kB


def seeds_of(name: str, number: int) -> tuple[int, int]:
    """The seed of an input of a format."""
    return zlib.crc32(name.encode()), number


def outcome_of(form: Format, folder: Path, sound: bytes, expected: Found, data: bytes) -> tuple[str, str]:
    """What comes of the file with these bytes: a word, and what was said."""
    (folder / form.file).write_bytes(data)
    try:
        found = form.read(folder)
    except InputError as error:
        said = str(error)
        named = Path(form.file).name in said or Path(form.file).parent.name in said
        return ("refused" if (named and "remedy" in said) or form.name == "stage" else "unnamed"), said
    except Exception:
        return "traceback", traceback.format_exc()
    if same(found, expected):
        return "same", ""
    if form.plain is not None:
        try:
            by = form.plain(data)
        except Exception:
            return "different", "a plain reader refuses it: " + traceback.format_exc().splitlines()[-1]
        if form.name.startswith("config"):
            return ("confirmed" if _is_config(found, by, expected, form.plain(sound)) else "different"), "other values"
        return ("confirmed" if confirmed(found, by) else "different"), f"{_shapes(found)} for {_shapes(by)}"
    return "different", "other arrays than those that were written"


def _shapes(found: Found) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in found.items())


def _is_config(found: Found, said: Found, expected: Found, was: Found) -> bool:
    """Every value that a file says is in the config, and every other is what it was before, or stands in a table that
    the file changed."""
    values = {place: str(value) for place, value in said.items() if not place.endswith("#")}
    if not all(_means(value, found, place) for place, value in values.items()):
        return False
    before = {place: str(value) for place, value in was.items() if not place.endswith("#")}
    touched = {place for place in values.keys() | before.keys() if values.get(place) != before.get(place)}
    tables = {place.rpartition(".")[0] for place in touched} | {place.rstrip("#") for place in said.keys() ^ was.keys()}
    changed = {place.rstrip("#") for place in expected if str(expected[place]) != str(found.get(place, ""))}
    return all(any(place.startswith(table) or table.startswith(place) for table in tables) for place in changed)


def _means(written: str, found: Found, place: str) -> bool:
    """A value is what the config has: the same text or number, a path below the folder, or a list of one."""
    place = place if place in found else f"{place}.0"
    if place not in found:
        return False
    resolved = str(found[place])
    if written == resolved or written.strip("'\"") in resolved:
        return True
    try:
        return float(written) == float(resolved)
    except ValueError:
        return False


def main(folder: Path) -> None:
    """Read the names and numbers of inputs, and say of each what came of it."""
    said = os.fdopen(os.dup(1), "w", buffering=1)
    errors = folder / "stderr.txt"
    descriptor = os.open(errors, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    os.dup2(descriptor, 1)
    faulthandler.enable()
    log.set_up(0, 1)
    sys.unraisablehook = log.libraries.ignored
    sound: dict[str, tuple[Path, bytes, Found]] = {}
    for line in sys.stdin:
        name, number = line.rstrip("\n").split("\t")
        form = FORMATS[name]
        if name not in sound:
            beside = folder / name.replace(" ", "_")
            beside.mkdir()
            form.write(beside)
            sound[name] = beside, (beside / form.file).read_bytes(), form.read(beside)
            if form.plain is not None and not name.startswith("config"):
                assert confirmed(sound[name][2], form.plain(sound[name][1])), f"the plain reader of {name} differs"
        beside, data, expected = sound[name]
        changed, how = mutated(data, form.mutations, seeds_of(name, int(number)))
        faulthandler.dump_traceback_later(HANGS, exit=True)
        os.truncate(errors, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        word, words = outcome_of(form, beside, data, expected, changed)
        faulthandler.cancel_dump_traceback_later()
        sys.stderr.flush()
        raw = [one for one in errors.read_text(errors="replace").splitlines() if one and one[2:3] + one[5:6] != "::"]
        if raw:
            word, words = "raw output", "\n".join(raw[:5])
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory > LARGEST:
            word, words = "memory", words
        said.write(json.dumps({"format": name, "seed": int(number), "by": how, "came": word, "said": words}) + "\n")
        (beside / form.file).write_bytes(data)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
