"""The Hydra launcher of `cbir sweep`: hands each batch of jobs, of whatever sweeper, to the function that runs them.

Hydra takes plugins from this folder only, hence the file; everything else is in `cbir.runs.sweep`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher


class BatchLauncher(Launcher):
    """The sweeper's batch in, one number for each job out (None for a job that failed)."""

    def setup(self, *, hydra_context: Any, task_function: Callable[..., Any], config: Any) -> None:
        """Called by Hydra; `task_function` is `cbir.runs.sweep.Sweep.run_batch`."""
        self._run_batch = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Called by the sweeper."""
        values = self._run_batch(job_overrides)
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=value)
            for overrides, value in zip(job_overrides, values, strict=True)
        ]


ConfigStore.instance().store(
    group="hydra/launcher", name="cbir", node={"_target_": f"{__name__}.{BatchLauncher.__name__}"}
)
