"""The Hydra launcher of `cbir sweep`: passes each batch of jobs from the sweeper to `cbir.runs.sweep.Sweep.run_batch`.

It is here because Hydra looks for plugins in this folder only.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher


class BatchLauncher(Launcher):
    """Returns a number for each job of a batch, None for a failed job."""

    def setup(self, *, hydra_context: Any, task_function: Callable[..., Any], config: Any) -> None:
        """Keep the function that runs a batch.  Hydra calls this first."""
        self._run_batch = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run a batch.  The sweeper calls this."""
        values = self._run_batch(job_overrides)
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=value)
            for overrides, value in zip(job_overrides, values, strict=True)
        ]


ConfigStore.instance().store(
    group="hydra/launcher", name="cbir", node={"_target_": f"{__name__}.{BatchLauncher.__name__}"}
)
