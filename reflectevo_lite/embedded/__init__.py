"""The embedded world: tasks whose mistakes are known, and the small model that was made on them (`model/`, by notebook 00).

Problem rows and texts that a model wrote come in; out go problems, diagnoses of attempts and of reflections. Importing
this room loads no torch."""

from .tasks import ANSWER, FAMILIES, blamed, diagnose, problems, sample_task, synthetic, to_task
from .truth import CAUSES, MARK, REFLECTION, Truth, truth
