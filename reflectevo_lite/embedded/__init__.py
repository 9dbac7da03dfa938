"""The embedded world: tasks whose mistakes are known, and the small model that was made on them.

Problem rows and texts that a model wrote come in; out go problems, diagnoses of attempts and reflections, and, for
notebook 00, the model itself. `model/` holds the shipped weights. Importing this room loads no torch."""

from .corpus import KINDS, reflection_text
from .making import GATES, RECIPE, gate_table, gates, pretrain, write_card
from .tasks import ANSWER, FAMILIES, blamed, diagnose, problems, sample_task, synthetic, to_task
from .tokenizer import build_tokenizer, encode, phrases
from .truth import OWN_WORDS, Truth, edit, truth, with_plan
