"""Everything a document may refer to, read in one go."""

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.db import documents, environments
from rollout.db.session import Session
from rollout.domain.cohort import Cohort
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric


@dataclass(frozen=True, slots=True)
class World:
    """All authored documents by key."""

    flags: Mapping[str, Flag]
    cohorts: Mapping[str, Cohort]
    metrics: Mapping[str, Metric]
    environments: frozenset[str]


async def load(session: Session) -> World:
    """The world as it stands in this transaction."""
    return World(
        flags={key: document for key, (document, _) in (await documents.every(session, Flag)).items()},
        cohorts={key: document for key, (document, _) in (await documents.every(session, Cohort)).items()},
        metrics={key: document for key, (document, _) in (await documents.every(session, Metric)).items()},
        environments=frozenset(await environments.every(session)),
    )
