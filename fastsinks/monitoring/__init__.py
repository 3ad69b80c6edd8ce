"""What endpoints are doing, for those who watch them: variables, Prometheus, a page.

Nothing here is called when an event passes; all of it is read when somebody looks.
"""

from __future__ import annotations

from ._app import wsgi_app
from ._prometheus import register, unregister
from ._server import Server, serve
from ._variables import variables

__all__ = ["Server", "register", "serve", "unregister", "variables", "wsgi_app"]
