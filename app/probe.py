"""Does a candidate answer, and not as the base does? Asked of both before anyone else is.

An engine can load an adapter that does not fit without an error, and go on serving the base. Greedy
texts tell, asked twice: the same weights now and then differ by rounding, as other requests share
their batch. Knows nothing of how an engine came up.
"""

from collections.abc import Mapping, Sequence
from contextlib import aclosing

from app.engine import Engine
from kb import prompt

_HOURS = prompt.Excerpt(1, "The pharmacy opens at 8:15 on weekdays and closes at 18:40.")
_VAN = prompt.Excerpt(2, "Parcels for the ward arrive on Tuesday with the blue van.")
_OWLS = prompt.Excerpt(1, "Owls sleep by day and hunt by night.")
PROBES: Sequence[Sequence[Mapping[str, str]]] = (
    prompt.messages("When does the pharmacy open on weekdays?", [_HOURS, _VAN]),
    prompt.messages("Who wrote the hospital's statute?", [_OWLS]),
    prompt.messages("What brings the parcels?", [_HOURS, _VAN]),
    prompt.messages("猫头鹰什么时候睡觉？", [_OWLS]),
)
_TOKENS = 24


async def answers(engine: Engine) -> bool:
    """Whether the engine answers a question with any text. Raises EngineDown, BadData."""
    return bool((await _says(engine, PROBES[0])).strip())


async def differ(candidate: Engine, base: Engine) -> bool:
    """Whether any probe shows that these are not the same weights. Raises EngineDown, BadData."""
    for messages in PROBES:
        ours, theirs = await _says(candidate, messages), await _says(base, messages)
        if ours == theirs:
            continue
        again = await _says(candidate, messages), await _says(base, messages)
        if {ours, again[0]}.isdisjoint({theirs, again[1]}):
            return True
    return False


async def _says(engine: Engine, messages: Sequence[Mapping[str, str]]) -> str:
    options = {"max_tokens": _TOKENS, "temperature": 0.0}
    text = ""
    async with aclosing(engine.stream(messages, options)) as deltas:
        async for delta in deltas:
            text += delta.text
    return text
