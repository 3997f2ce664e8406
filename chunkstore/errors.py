"""Every error that this project raises: one tree, so that `except ChunkstoreError` is enough.

Each says what was wrong, with which value, and what to do. A database library's error reaches the
user only as the cause. No message holds a password, and of a refused value the first 80 characters at most.
"""

_SHOWN = 80


class ChunkstoreError(Exception):
    """The root of the tree."""


class InvalidInput(ChunkstoreError, ValueError):
    """A value that the store refuses; nothing was written.

    `field` names the argument, `allowed` says what it may hold.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field = field
        self.allowed = allowed
        super().__init__(f"{field}: {_shortened(value)} is not allowed; {allowed}")


def _shortened(value: object) -> str:
    try:
        text = ascii(value)
    except Exception:  # noqa: BLE001 - an integer of thousands of digits, a nesting without end, a repr that fails
        text = f"this {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


class ConfirmationNeeded(ChunkstoreError):
    """Nobody can be asked whether to go on, and `--yes` was not given."""


# --- the database -------------------------------------------------------------------------------


class DatabaseError(ChunkstoreError):
    """The database cannot be used as it is."""


class ServerUnreachable(DatabaseError):
    """No server answers at the address."""


class AuthenticationFailed(DatabaseError):
    """The server answered and refused the user or the password."""


class DatabaseMissing(DatabaseError):
    """The server answers, but has no database of that name."""


class InsufficientPrivilege(DatabaseError):
    """The role lacks a right that the operation needs."""


class UnsupportedServer(DatabaseError):
    """The server or its vector extension is missing, or older than what is supported."""


class IsolationRefused(DatabaseError):
    """A transaction at another isolation level than READ COMMITTED (rule 1)."""


class SchemaNotMigrated(DatabaseError):
    """The schema lacks migrations that this code needs: run `chunkstore migrate`."""


class SchemaTooNew(DatabaseError):
    """The schema was migrated by a newer chunkstore: upgrade this one."""


class StoreReplaced(DatabaseError):
    """The store was restored, recovered or failed over since it was opened: open it again."""


# --- names that do not exist --------------------------------------------------------------------


class NotFound(ChunkstoreError, LookupError):
    """The named thing is not in the store."""


class UnknownCollection(NotFound):
    """No collection has that name."""


class UnknownFile(NotFound):
    """No file has that key in the collection, or it was erased."""


class UnknownVersion(NotFound):
    """The file has no such version, or its content was collected."""


class UnknownModel(NotFound):
    """The collection has no such model, or no model answers to that name."""


class UnknownDeadLetter(NotFound):
    """No dead letter is kept for that chunk and model."""


# --- the write model ----------------------------------------------------------------------------


class Conflict(ChunkstoreError):
    """Somebody else's write came first; nothing of this one was written."""


class StaleVersion(Conflict):
    """`expected_version` is not the latest version any more (rule 7)."""


class IdempotencyKeyReused(Conflict):
    """The idempotency key was used for other content of the same file (rule 7)."""


class VersionFenced(Conflict):
    """The open version was abandoned, or its file was erased, while it was being written (rule 5)."""


class ModelMismatch(ChunkstoreError):
    """The model given is not the one that the collection was created with."""


class ModelIncomplete(ChunkstoreError):
    """The model cannot serve yet: some files wait for their embeddings."""


# --- waiting and reading ------------------------------------------------------------------------


class NeverActive(ChunkstoreError):
    """The version waited for cannot become active: collected, erased, rolled back, or on a dead letter."""


class WaitTimeout(ChunkstoreError, TimeoutError):
    """The version was not active when the time given was over."""


# --- consumers ----------------------------------------------------------------------------------


class LeaseLost(ChunkstoreError):
    """The lease was taken over by another consumer; nothing was written (invariant 8)."""


class EmbeddingFailed(ChunkstoreError):
    """The model gave no usable vector for these texts; counts as an attempt."""


class TextsFailed(EmbeddingFailed):
    """The model has a vector for some of the texts only.

    `vectors` are `(n, dimensions) float32`, `errors` says by row why that row holds none.
    """

    def __init__(self, vectors: object, errors: dict[int, str]) -> None:
        self.vectors = vectors
        self.errors = errors
        super().__init__(next(iter(errors.values())))


class ModelRefused(ChunkstoreError):
    """The model's provider refuses the key, the model or every text: stops the consumer, at no attempts."""


class ModelUnavailable(ChunkstoreError):
    """The model's provider does not answer; opens the breaker and consumes no attempts."""


class ModelHangs(ChunkstoreError):
    """The model did not answer in the time it was given: ends the consumer, and should end its process."""


class MissingExtra(ChunkstoreError):
    """An optional part is not installed; the message says the pip command that brings it."""


# --- ingestion ----------------------------------------------------------------------------------


class UnreadableFile(ChunkstoreError):
    """A file that could not be read or parsed; ingestion goes on with the others."""


class WorkerFailed(ChunkstoreError):
    """No process that reads files can be used; nothing that was appended before is lost."""


class FormatNotInstalled(UnreadableFile, MissingExtra):
    """A file whose format is read by a library that is not installed; the message says what brings it."""
