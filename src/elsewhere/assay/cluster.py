"""A Ray cluster as a ``concurrent.futures.Executor``: all that the engine asks for."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, cast

from elsewhere.assay.engine import WorkerDied
from elsewhere.errors import UserError, one_line

_CARRIED = ("ELSEWHERE_DATA", "OMP_NUM_THREADS")  # what a worker must know of this machine's environment


class RayExecutor(Executor):
    """Run calls as Ray tasks. A call whose node is lost runs again elsewhere; one that kills its worker four times has failed.

    Args:
        address: of a running cluster, ``"auto"`` for this machine's; None: one is started here for the time being.
        threads: that each call may use, and that Ray reserves for it.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str | None = None, threads: int = 1) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError("Ray is not installed: pip install 'elsewhere[ray]'") from error
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self.ray, self.mine = ray, not ray.is_initialized()
        told = {name: os.environ[name] for name in _CARRIED if name in os.environ}
        if self.mine:
            _knock(address)
            try:
                ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None, logging_level=logging.ERROR, runtime_env={"env_vars": told})
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UserError(f"no Ray cluster answers at {address!r} ({one_line(error, 120)}): start one with 'ray start --head', or leave --address away") from error
        self.call = ray.remote(num_cpus=threads, max_retries=3)(_call)
        self.workers = max(1, int(cast("Any", ray).cluster_resources().get("CPU", 1)) // threads)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of ``function(*args, **kwargs)`` on the cluster."""
        told: Future[Any] = Future()
        told.set_running_or_notify_cancel()

        def pass_on(done: Future[Any]) -> None:
            error = done.exception()
            if error is None:
                told.set_result(done.result())
            elif isinstance(error, (self.ray.exceptions.RayTaskError,)):
                told.set_exception(getattr(error, "cause", None) or error)
            else:  # the worker or its node died, again and again
                told.set_exception(WorkerDied(one_line(error)))

        self.call.remote(function, *args, **kwargs).future().add_done_callback(pass_on)
        return told

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Part from the cluster; one that was started here ends."""
        if self.mine and self.ray.is_initialized():
            self.ray.shutdown()


def _knock(address: str | None) -> None:
    """Ask a named cluster's port once: Ray itself would go on asking for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"no Ray cluster answers at {address!r} ({error.strerror or error}): start one with 'ray start --head', or leave --address away") from error


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)
