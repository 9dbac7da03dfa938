"""Is an answer right? One grader each for choice, math, free text, code and exact answers.

A problem's `grader` says which one judges it. In come completions, whatever a model wrote; out go verdicts. The slow
graders (math, code) work in processes of their own, and importing this room loads neither torch nor the sandbox."""

from .choice import extract_choice
from .graders import Grade, grade, grade_many, grade_readings, read, text_scores
from .math_pool import same_math
from .replies import UNREAD, Reading
