"""What a run asks of servers, before anything costs: do they answer, and who has the weights that the rest needs?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import generate
from .params import ANALYSIS, DATA, ROLLOUTS


def check(values: Mapping[str, Any], stages: Sequence[str], say: Any = print) -> list[str]:
    """The stages to be left out, since they load weights that only the server has; `say` hears why.

    Asks each server for a token if notebook 02 is to run. Raises ValueError for a judge that cannot be had and for a
    server that does not answer.
    """
    v = with_judge(values)
    url, model = v["server_url"], v["model"]
    if ROLLOUTS in stages and (url or v["judge"] == "server"):
        from .. import curate

        server = generate.ServerEngine(url, model, **v["server_options"] or {}) if url else None
        judge = {"url": v["judge_url"], "model": v["judge_model"], "options": v["judge_options"]}
        price = {"usd_per_million_tokens": v["judge_usd_per_million_tokens"], "max_usd": v["judge_max_usd"]}
        curate.make_judge(v["judge"], server, **judge, **price)
        if server:
            say(server.probe())
        if v["judge_url"] != url:
            say("judge: " + generate.ServerEngine(v["judge_url"], v["judge_model"], **v["judge_options"] or {}).probe())
    return without_weights(v, stages, say)


def without_weights(values: Mapping[str, Any], stages: Sequence[str], say: Any = print) -> list[str]:
    """The stages that load weights which only the server has. No server is asked."""
    model, local = values["model"], [s for s in stages if s not in (DATA, ROLLOUTS, ANALYSIS)]
    if not (values["server_url"] and local):
        return []
    here = generate.at_hand(model)
    how = f"trained here; the server only generates, for {ROLLOUTS}" if here else "not here: left out"
    say(f"{', '.join(local)}: the weights of {model!r} are {how}")
    return [] if here else local


def with_judge(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters whose judge on a server has an address: without one of its own, the server that generates."""
    v = dict(values)
    if v.get("judge") == "server" and v.get("server_url") and not v.get("judge_url"):
        own = {"served_model": v["judge_model"]} if v["judge_model"] else {}
        v |= {"judge_url": v["server_url"], "judge_model": v["judge_model"] or v["model"]}
        v["judge_options"] = v["judge_options"] or (v["server_options"] or {}) | own
    return v
