"""The fixtures of the fault tests."""

from tests.faults.fix_copies import cluster, copier, make_database
from tests.faults.fix_processes import besieged, besieged_files, besieged_store, files, fleet
from tests.faults.fix_searched import searched
from tests.store.fix_store import store

__all__ = [
    "besieged",
    "besieged_files",
    "besieged_store",
    "cluster",
    "copier",
    "files",
    "fleet",
    "make_database",
    "searched",
    "store",
]
