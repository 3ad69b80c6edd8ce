"""Monitoring of endpoints: variables, metrics for Prometheus, a page for people.

No event passes through here: endpoints keep their own counts, which are read on demand.
"""

from __future__ import annotations

from ._app import wsgi_app
from ._prometheus import register, unregister
from ._server import Server, serve
from ._variables import variables

__all__ = ["Server", "register", "serve", "unregister", "variables", "wsgi_app"]
