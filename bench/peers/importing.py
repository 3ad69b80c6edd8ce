"""Executes the import statement that it is given, and prints the nanoseconds that it took.

python bench/peers/importing.py "from fastsinks import Queue"
"""

import sys
from time import perf_counter_ns as now

statement = compile(sys.argv[1], "<statement>", "exec")
del sys.path[0]  # the folder of this file, whose modules would hide others
start = now()
exec(statement)
print(now() - start)
