"""Dask's dashboard of a scheduler in this process, loaded when somebody looks at it.

Its libraries take half a second of every start, and most runs nobody watches.
"""

from __future__ import annotations

from typing import Any

from tornado import web


def attach(scheduler: Any) -> None:
    """Give a scheduler that has an HTTP server, and no dashboard on it, a late one."""
    scheduler.http_application.add_application(_Late(scheduler))


class _Late(web.Application):
    """Gives way to the dashboard with the first request that nobody else answers."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__()
        self._scheduler = scheduler

    def find_handler(self, request: Any, **more: Any) -> Any:
        """Put the dashboard in this place and ask it."""
        from distributed.dashboard.scheduler import connect

        application = self._scheduler.http_application
        application.applications.remove(self)
        connect(application, self._scheduler.http_server, self._scheduler)
        return application.find_handler(request, **more)
