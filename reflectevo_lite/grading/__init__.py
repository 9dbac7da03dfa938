"""Is an answer right? Choice, math, text, exact and code, each by its own reader."""

from .grade import Grade, extract_choice, grade, grade_many, same_math, text_scores

__all__ = ["Grade", "extract_choice", "grade", "grade_many", "same_math", "text_scores"]
