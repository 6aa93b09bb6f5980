"""A kind of problem outside hpcfit, as a package would bring it: a line through points, with an offset of each point.

`tests/kinds/test_toy_kind.py` copies it into a folder of its own, with an entry point, and runs the commands on it.
"""

from hpcfit.kinds.table import Kind, Metric

KIND = Kind(
    about="a line through points, with a small offset of each point",
    config="toykind.config:ToyConfig",
    open="toykind.case:ToyCase.open",
    study="toykind.study:study",
    write_results="toykind.outputs:write_results",
    headline="toykind.outputs:headline",
    report="toykind.report:CONTENTS",
    files=("offsets.csv",),
    metrics=(
        Metric("misfit", "misfit", better="less", chooses="A small misfit is what this toy is after.", brief=True),
        Metric("spread", "price of offsets"),
    ),
)
