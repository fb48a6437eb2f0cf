"""What is answered to a request."""

from pydantic import Field

from rapid.requests.calibs import CalibStanding
from rapid.requests.campaigns import CampaignAnswer
from rapid.requests.completion import Lacking
from rapid.requests.message import Message
from rapid.results.models import Scalar


class ExposureAnswer(Message):
    """What became of one exposure under one pipeline."""

    exposure_id: int
    pipeline: str
    run: str
    n_finished: int
    n_expected: int
    is_complete: bool
    metrics: dict[str, Scalar] = Field(default_factory=dict)
    products: dict[str, str] = Field(default_factory=dict, description="Keys in the products store, by kind.")
    excluded: dict[str, str] = Field(default_factory=dict, description="Detectors that are switched off: the reason.")
    not_finished: dict[str, str] = Field(default_factory=dict, description="Detector: state and reason.")


class AmpTest(Message):
    """One test of one amp that failed."""

    detector: str
    amp: str = Field(description="Empty for a test of the detector as a whole.")
    test: str
    value: float | None = Field(description="What was measured; None if it could not be.")
    limit: float | None
    message: str


class CalibAnswer(Message):
    """The calib that was built, and whether it passed: one that did not is kept, and not certified."""

    kind: str
    inputs: tuple[int, ...]
    calib_ids: dict[str, str] = Field(default_factory=dict, description="By detector.")
    passed: bool
    outcome: str = Field(default="", description="Of its verification: pass, warn, not_measured, fail.")
    states: dict[str, str] = Field(default_factory=dict, description="By detector: certified or rejected.")
    n_amps: int = Field(description="Amps tested.")
    failing_amps: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="By detector.")
    failures: tuple[AmpTest, ...] = Field(default=(), description="The first 200.")
    not_tested: dict[str, str] = Field(default_factory=dict, description="Detector: why it was not.")


class RedoAnswer(Message):
    """What was done again because a calib or an exposure is bad."""

    bad: tuple[str, ...] = Field(description="The bad calibs or exposures; the first 300.")
    n_results: int = Field(description="Results of single detectors that were touched.")
    n_redone: int = Field(description="Of these, how many are stored anew.")
    exposures: tuple[int, ...] = Field(default=(), description="With results stored anew.")
    rebuilt: dict[str, str] = Field(
        default_factory=dict, description="Calibs that were built with what is bad: what is in their place now."
    )
    not_redone: dict[str, str] = Field(default_factory=dict, description="Job: why; the first 300.")


class RequestAnswer(Message):
    """What is answered."""

    is_complete: bool = Field(description="Every wanted detector of every exposure finished.")
    exposures: tuple[ExposureAnswer, ...] = ()
    missing: tuple[int, ...] = Field(default=(), description="Exposures that did not come.")
    lacking: Lacking | None = Field(
        default=None, description="What did not come: exposures, places in the group, raws. None if all is there."
    )
    focus: dict[str, Scalar] | None = Field(default=None, description="Best focus of the sweep, with its error.")
    donut_pair: dict[str, Scalar] | None = Field(default=None, description="Focus offset of the pair.")
    calib: CalibAnswer | None = None
    calibs: tuple[CalibStanding, ...] = Field(default=(), description="Where the named calibs stand now.")
    redo: RedoAnswer | None = None
    campaign: CampaignAnswer | None = None
    notes: tuple[str, ...] = ()
