"""Whether rows that judge a run are there, and none of them is among those that it trains on."""

from collections.abc import Iterator, Sequence

from finetune import noise, overlap, trainset
from finetune.problems import Problem
from finetune.rows import Role, Row
from finetune.settings import TrainSettings


def missing(
    settings: TrainSettings, train: Sequence[Row], held: Sequence[Role]
) -> Iterator[Problem]:
    """The checkpoint that is kept is chosen by the held-out loss of the field (not in grpo).
    `held`: the roles of which rows are held out."""
    trained = any(row.role == "domain" for row in train)
    if settings.stage == "grpo" or not trained or "domain" in held:
        return
    role = next(iter(held), "")
    judge = f"the loss of {role} rows chooses" if role else "no loss stops the run, or chooses"
    text = f"no row of the field is held out: {judge} the checkpoint that is kept; more documents"
    yield Problem("warning", "held out", f"{text}, or a larger data.val_size, would give some")


def leaks(settings: TrainSettings, rows: trainset.TrainSet) -> Iterator[Problem]:
    """Rows that hold what the model will be judged on, or stopped by."""
    judged = overlap.read(overlap.evaluations(settings))
    if judged and (held := [r.origin.source for r in rows.train if judged.overlaps(r)]):
        text = f"{len(held)} rows hold what the model will be judged on: {held[0]}"
        yield Problem("serious", "overlap", text)
    trained = {noise.whole(row) for row in rows.train}
    twice = [r for some in rows.held_out.values() for r in some if noise.whole(r) in trained]
    if twice:
        text = f"{len(twice)} held-out rows are trained on too: {twice[0].origin.source}"
        yield Problem("warning", "overlap", text)
