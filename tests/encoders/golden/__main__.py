"""Write the golden values of this machine: `python -m tests.encoders.golden`.

Refuses values that changed while VECTORS_VERSION did not, because caches would keep the old vectors under the same keys.
Run it on a CPU that has every precision (openvino/bf16 needs AVX512-BF16 or AMX).
"""

import sys
import tempfile
from pathlib import Path

from tests.encoders.golden import (
    FOLDER,
    REMEDY,
    compute_golden,
    differences,
    export_demo,
    needs_new_version,
    read_golden,
    write_golden,
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        export_demo(Path(folder))
        computed = compute_golden(Path(folder))
    if (FOLDER / "golden.json").exists():
        golden = read_golden()
        print(*differences(golden, computed), sep="\n")
        if needs_new_version(golden, computed):
            sys.exit(f"error: expected the golden values, found others under the same version; {REMEDY}")
    write_golden(computed)
    print(f"{FOLDER} has the values of version {computed.version}: {', '.join(computed.vectors)}")


if __name__ == "__main__":
    main()
