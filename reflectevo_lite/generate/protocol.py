"""What every engine is: conversations in, completions out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..rows import Message

Adapter = str | Path | None
AnswerBy = Literal["text", "likelihood", "likelihood_norm"]
FEW, MOST_REFUSED = 2, 0.05  # so many prompts may be refused in any case; the share of more that ends a run
REFUSED = "refused"  # so begins the trouble of a completion that was never made


class Completion(NamedTuple):
    """One generated turn."""

    text: str
    tokens: int  # end of turn included
    truncated: bool  # the length limit cut it
    trouble: str = ""  # why a server refused the prompt, or what its reply lacks ("; " in between)

    @property
    def lacks(self) -> dict[str, Any]:
        """The trouble as a field of a row, if there is any."""
        return {"trouble": self.trouble} if self.trouble else {}


NOT_ASKED = Completion("", 0, False, f"{REFUSED}, not asked: what it builds on was refused")


def refused(row: Any) -> bool:
    """Whether the prompt of a row (an attempt, a reflection) was refused."""
    return row.get("trouble", "").startswith(REFUSED)


class Sampling(NamedTuple):
    """How completions are drawn; temperature 0 is greedy."""

    temperature: float
    max_new_tokens: int
    seed: int


class Engine:
    """Anything that answers conversations: whatever has `name`, `backend` and `generate` will do."""

    name: str
    backend: str  # how, in words
    answer_by: AnswerBy = "text"  # how choice questions are answered (`rollouts.answer`)

    def generate(
        self,
        conversations: Sequence[list[Message]],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_new_tokens: int = 512,
        seed: int = 0,
        adapter: Adapter = None,
    ) -> list[list[Completion]]:
        """`n` completions of each conversation, in order. Raises ValueError for several greedy (temperature 0) ones."""
        if n > 1 and temperature <= 0:
            raise ValueError(f"n={n} greedy completions would be {n} copies: set temperature above 0, or n to 1")
        asked = [c for c in conversations for _ in range(n)]
        found = self._complete(asked, Sampling(temperature, max_new_tokens, seed), adapter) if asked else []
        return [found[i : i + n] for i in range(0, len(found), n)]

    def _complete(self, conversations: list[list[Message]], how: Sampling, adapter: Adapter) -> list[Completion]:
        raise NotImplementedError
