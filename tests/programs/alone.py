"""Call one test of a file, wrapped in `support.alone`: ``alone.py FILE NAME``."""

from __future__ import annotations

import importlib
import operator
import sys
from pathlib import Path

if __name__ == "__main__":
    file, name = sys.argv[1:]
    sys.path.insert(0, str(Path(file).parent))
    module = importlib.import_module(Path(file).stem)
    operator.attrgetter(name)(module).__wrapped__()
