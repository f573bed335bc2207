"""The exception tree. Every message gives the fact and the fix, in one line."""


class WastelensError(Exception):
    """Base of all errors Wastelens raises on purpose; the command line prints them without a traceback."""

    exit_status = 1


class InputError(WastelensError):
    """The user's input cannot be used as it is: exit status 2."""

    exit_status = 2


class ConfigError(InputError):
    """A config key, value or command-line parameter is wrong."""


class AnnotationsError(InputError):
    """The annotations file is missing, unreadable, or not COCO."""


class MappingError(InputError):
    """The category-to-material table does not fit itself or the annotations."""


class DatasetError(InputError):
    """The dataset's folder or photos cannot be used."""


class SplitError(InputError):
    """No split into train, val and test meets what was asked for."""


class BalanceError(InputError):
    """No oversampling meets what was asked for."""


class PreparedDatasetError(InputError):
    """The prepared dataset is missing, unfinished, or changed behind its manifest."""


class RunError(InputError):
    """A named MLflow run cannot be used for what was asked."""


class SearchStoreError(InputError):
    """The database that keeps the trials of a tuning does not answer, or cannot be used."""


class StoreUnreachable(RunError):  # noqa: N818  a state of the world, no fault of the input
    """MLflow's server does not answer: what was to be logged or read is not refused, it has to wait.

    Attributes:
        fact: that it does not, for messages that go on by something else than the fix.
    """

    def __init__(self, store: str) -> None:
        self.fact = f"{store} does not answer."
        super().__init__(f"{self.fact} Start it, or set MLFLOW_TRACKING_URI to one that runs.")


class EndsLater(WastelensError):  # noqa: N818  no error at all: a way to leave a block
    """Raised within ``Tracker.start`` to leave the run open; ``finish`` tells its end once all of it is logged."""


class NonFiniteLossError(WastelensError):
    """Training met a loss that is not a finite number."""


def did_you_mean(word: str, known: list[str]) -> str:
    """`` Did you mean 'x'?`` where a near word is known, otherwise nothing."""
    import difflib  # only when something is wrong: this module is on the way to --help

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
