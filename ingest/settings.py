"""The settings of ingestion, and the policy of trying again. Knows no file and no clock."""

import random
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from kb.settings import Section


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with jitter: 1 s, 2 s, 4 s, ... each shortened by up to half.

    Jitter keeps many files that failed together from coming back together.
    """

    base_seconds: float = 1.0
    max_seconds: float = 60.0
    attempts: int = 8

    def delay(self, attempts: int, rng: random.Random) -> float:
        """Seconds to wait after `attempts` earlier failures (0 for the first)."""
        # 2**attempts overflows a float long after the delay has reached its maximum.
        full = min(self.max_seconds, self.base_seconds * 2.0 ** min(attempts, 30))
        return full * rng.uniform(0.5, 1.0)


class IngestSettings(Section):
    """How folders are followed and files are read."""

    settle_seconds: Annotated[float, Field(ge=0)] = 2.0
    """Quiet time before a file is taken that somebody has open, or that may be."""
    sweep_seconds: Annotated[float, Field(gt=0)] = 120.0
    """How often folders are compared with the ledger; events can be lost."""
    max_file_mb: Annotated[int, Field(ge=1)] = 64
    max_text_mb: Annotated[int, Field(ge=1)] = 32
    """Text that may come out of one file; a small archive can hold hundreds of times its size."""
    parse_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Time after which the reading of one file (of a scan: of one page) is given up."""
    parse_memory_mb: Annotated[int, Field(ge=128)] = 2048
    """Memory that the reading of one file may take."""
    parse_at_once: Annotated[int, Field(ge=1)] = 2
    """Files of a bulk load that are read at the same time; so many again of those that came alone,
    which therefore never wait for a scan of the load."""
    batch_files: Annotated[int, Field(ge=1)] = 64
    """Files of a bulk load that may be under way at once; their passages are sorted by length."""
    turn_seconds: Annotated[float, Field(gt=0)] = 0.1
    """How long one embedding call should take: so long a file that comes alone may have to wait."""
    retry_seconds: Annotated[float, Field(gt=0)] = 1.0
    """Wait after the first failure that may pass; it doubles with each further one."""
    retry_max_seconds: Annotated[float, Field(gt=0)] = 60.0
    retry_attempts: Annotated[int, Field(ge=1)] = 8
    """After so many the file is failed; the next sweep tries it afresh."""
    compact_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of dead passages (a thousand at least) at which they leave the disk."""
    compact_seconds: Annotated[float, Field(ge=0)] = 86400.0
    """Time after which even a single dead passage does."""
    ocr: Literal["auto"] | bool = "auto"
    """Read images and scanned pages with Tesseract; `auto`: where its data is installed."""
    ocr_languages: str = ""
    """Tesseract's names, joined by `+` (`eng+deu`); empty: `eng` and `chi_sim`, if installed."""
    ocr_pages: Annotated[int, Field(ge=1)] = 300
    """Scanned pages of one file; a longer scan fails. Each page has `parse_seconds` of its own."""

    @property
    def retry(self) -> RetryPolicy:
        return RetryPolicy(self.retry_seconds, self.retry_max_seconds, self.retry_attempts)
