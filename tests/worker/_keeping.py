"""What tests of keepers share."""

from __future__ import annotations

from boundq import Queue


class Heard(list[tuple[str, str, int, bool]]):
    """What the keeper has said."""

    def __call__(self, queue: str, job_id: str, fence: int, timed_out: bool) -> None:
        self.append((queue, job_id, fence, timed_out))


def deadline_of(queue: Queue, job_id: str) -> float:
    """When the job's lease ends, by the server."""
    job = queue.get(job_id)
    assert job is not None
    assert job.due is not None
    return job.due
