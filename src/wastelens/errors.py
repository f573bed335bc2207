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
    │   │   └── DatasetLacking        a worker has neither the dataset nor a copy of it
    │   ├── RunError                  an MLflow run, or MLflow's store
    │   │   └── StoreUnreachable      MLflow's server does not answer
    │   ├── SearchStoreError          Optuna's database
    │   ├── EngineError               the processes or the cluster that run the tasks
    │   │   └── WorkerLost            engine: the workers of a task died
    │   ├── NoNetwork                 web: no host can be reached
    │   └── NoCatalogue               getting.catalogues: no catalogue answers
    ├── NonFiniteLossError            training diverged
    ├── OutOfMemory                   a training needs more memory than its machine has
    ├── StoppedEarly                  no error: ends a run as KILLED
    ├── TaskInterrupted               engine: a task was ended before it was done
    ├── CatalogueDown                 getting.catalogues: one catalogue does not answer
    ├── Unfetchable                   web: an address yields nothing usable
    └── Closed                        web: the client was closed while threads still fetched
    BadPhotoError                     data.photos.decode, which served models carry without this module: not a usable
    │                                 photo; callers leave it out or answer with the reason
    ├── TooLargeForMemoryError        data.photos.decode: decoding it would take more memory than allowed
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


class DatasetLacking(PreparedDatasetError):  # noqa: N818  a state of the world, no fault of the input
    """A worker on another machine has neither the prepared dataset nor a copy of it."""


class RunError(InputError):
    """An MLflow run, or MLflow's store, cannot be used as requested."""


class SearchStoreError(InputError):
    """The database that holds the trials of a search does not answer or cannot be used."""


class EngineError(InputError):
    """The processes or the cluster that run the tasks cannot be used."""


class StoreUnreachable(RunError):  # noqa: N818  a state of the world, no fault of the input
    """MLflow's server does not answer."""


class StoppedEarly(WastelensError):  # noqa: N818  no error at all: a way to leave a block
    """Raised within ``Tracker.start`` to end a run as KILLED: the pruner or the time limit ended its training."""


class NonFiniteLossError(WastelensError):
    """The training loss is not a finite number."""


class OutOfMemory(WastelensError):  # noqa: N818  a state of the world
    """A training needs more memory than its machine has."""


def did_you_mean(word: str, known: list[str]) -> str:
    """Return `` Did you mean 'x'?`` if a known word is similar, otherwise an empty string."""
    near = nearest(word, known)
    return f" Did you mean '{near}'?" if near else ""


def nearest(word: str, known: list[str]) -> str:
    """Return the known word that is most like this one; "" where none is."""
    import difflib  # only when something is wrong: --help imports this module

    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.5)), "")
