"""The core in pure Python: the oracle of the tests, and a core for those who ask for it.

It tells the story of the compiled core (``src_c/fastsinks/_core``) with ``threading`` alone,
file by file, with the same names. It promises the same, more slowly, but for one thing. What
a signal's handler raises (Ctrl-C) it survives where a call waits: for room, a turn, an event,
a back-off, a flush or a close. The call then raises within 0.2 seconds, and everything can be
used again and is accounted for. Elsewhere a strike between two steps may cost the event that
was under way, though no lock stays held. The compiled core survives it anywhere.

Each object has one lock (see ``locked``), and user code is called with none held.
"""

from .broadcaster import Broadcaster as Broadcaster
from .channel import Channel as Channel
from .counters import Counters as Counters
from .dispatcher import Dispatcher as Dispatcher
from .filter import Filter as Filter
from .filter import ignore as ignore
from .queue import Queue as Queue
from .retrying import RetryingSink as RetryingSink
from .sink import NullSink as NullSink
from .sink import Sink as Sink
from .strategy import Breaker as Breaker
from .strategy import ExponentialBackoff as ExponentialBackoff
from .strategy import RetryStrategy as RetryStrategy
