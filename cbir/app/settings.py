"""The settings of the server, which `cbir app` passes through the environment to the script that Streamlit runs."""

import os
from dataclasses import dataclass
from pathlib import Path

MAX_UPLOAD_MB = 20
DATA_VARIABLE = "CBIR_APP_DATA"


@dataclass(frozen=True)
class Settings:
    """The folders that the page reads: the artifacts of the pipeline and, next to them, the reports."""

    data: Path
    reports: Path

    @classmethod
    def read(cls) -> "Settings":
        """Read the settings from the environment."""
        data = Path(os.environ.get(DATA_VARIABLE, "data"))
        return cls(data, data.parent / "reports")
