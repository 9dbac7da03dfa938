"""How a run is asked for and carried out: parameters, notebooks in order, the plan, the doctor, the bench, the command line."""

from .record import open_run

__all__ = ["open_run"]
