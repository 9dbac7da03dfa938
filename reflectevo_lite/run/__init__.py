"""How a run is asked for and carried out: parameters, notebooks in order, the plan, the doctor, the command.

Notebooks enter by `open_run` and `open_engine`; everybody else by the command `reflectevo` (cli.py).
"""

from .params import BadParameter
from .record import Params, open_engine, open_run
