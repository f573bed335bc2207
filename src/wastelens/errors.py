"""The tree of exceptions. Every message gives the fact and the fix, in one line.

Private ones and those that never leave their package are left out::

    WastelensError                    printed without a traceback; exit status 1
    ├── InputError                    the user's input cannot be used; exit status 2
    │   ├── ConfigError               a key, a value or a command-line parameter
    │   ├── AnnotationsError          the annotations file
    │   ├── MappingError              the table from categories to materials
    │   ├── DatasetError              the dataset's folder or photos
    │   ├── SplitError                no split meets the request
    │   ├── BalanceError              no oversampling meets the request
    │   ├── PreparedDatasetError      a prepared dataset is missing, unfinished or changed
    │   ├── RunError                  an MLflow run, or MLflow's store
    │   │   └── StoreUnreachable      MLflow's server does not answer
    │   ├── SearchStoreError          Optuna's database
    │   ├── WorkersError              tuning.trial_workers: all worker processes died
    │   ├── NoNetwork                 web: no host can be reached
    │   └── NoCatalogue               getting.catalogues: no catalogue answers
    ├── NonFiniteLossError            training diverged
    ├── EndsLater                     no error: leaves a run open
    ├── TrialFailed                   tuning.trials: a trial failed, the study goes on
    ├── DefaultsNotDone               tuning.trial_work: the trial of the defaults was cut short
    ├── NoTrialLeft                   tuning.database: every trial is done or taken
    ├── InLineAlready                 tuning.database: this trial is queued already
    ├── CatalogueDown                 getting.catalogues: one catalogue does not answer
    ├── Unfetchable                   web: an address yields nothing usable
    └── Closed                        web: the client was closed while threads still fetched
    BadPhotoError                     data.photos.decode, which served models carry without this module: not a usable
    │                                 photo; callers leave it out or answer with the reason
    └── UnwantedPhotoError            getting.rules: a usable photo that the settings exclude
"""


class WastelensError(Exception):
    """Base of all errors that Wastelens raises on purpose; the command line prints them without a traceback."""

    exit_status = 1


class InputError(WastelensError):
    """The user's input cannot be used as it is: exit status 2."""

    exit_status = 2


class ConfigError(InputError):
    """A config key, value or command-line parameter is wrong."""


class AnnotationsError(InputError):
    """The annotations file is missing, unreadable, or not COCO."""


class MappingError(InputError):
    """The table from categories to materials contradicts itself or the annotations."""


class DatasetError(InputError):
    """The dataset's folder or photos cannot be used."""


class SplitError(InputError):
    """No split into train, val and test meets the request."""


class BalanceError(InputError):
    """No oversampling meets the request."""


class PreparedDatasetError(InputError):
    """The prepared dataset is missing or unfinished, or its files no longer match its manifest."""


class RunError(InputError):
    """An MLflow run, or MLflow's store, cannot be used as requested."""


class SearchStoreError(InputError):
    """The database that holds the trials of a search does not answer or cannot be used."""


class StoreUnreachable(RunError):  # noqa: N818  a state of the world, no fault of the input
    """MLflow's server does not answer: logging and reading are not refused, but have to wait.

    Attributes:
        fact: the first sentence of the message, for messages that continue with something other than the fix.
    """

    def __init__(self, store: str) -> None:
        self.fact = f"{store} does not answer."
        super().__init__(f"{self.fact} Start it, or set MLFLOW_TRACKING_URI to one that runs.")


class EndsLater(WastelensError):  # noqa: N818  no error at all: a way to leave a block
    """Raised within ``Tracker.start`` to leave the run open; ``finish`` ends it once everything is logged."""


class NonFiniteLossError(WastelensError):
    """The training loss is not a finite number."""


def did_you_mean(word: str, known: list[str]) -> str:
    """Return `` Did you mean 'x'?`` if a known word is similar, otherwise an empty string."""
    import difflib  # only when something is wrong: --help imports this module

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
