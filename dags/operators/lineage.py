"""OpenLineage events of stages: the tables read and written, at their versions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from schemas.handoff import Handoff

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage


class LineageMixin:
    """For operators of stages; `read` and `written` are the hand-offs of the stage."""

    read: Mapping[str, Handoff] = {}
    written: Mapping[str, Handoff] = {}

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> "OperatorLineage":  # noqa: ARG002
        """Called by the provider when the task has ended, also after a failure."""
        from airflow.providers.openlineage.extractors import OperatorLineage
        from openlineage.client.event_v2 import InputDataset, OutputDataset
        from openlineage.client.facet_v2 import input_statistics_input_dataset, output_statistics_output_dataset

        inputs, outputs = [], []
        for handoff in self.read.values():
            read = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(rowCount=handoff.rows)
            facets = _described(handoff)
            inputs.append(InputDataset(*place(handoff.uri), facets=facets, inputFacets={"inputStatistics": read}))
        for handoff in self.written.values():
            wrote = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=handoff.rows)
            facets = _described(handoff)
            outputs.append(OutputDataset(*place(handoff.uri), facets=facets, outputFacets={"outputStatistics": wrote}))
        return OperatorLineage(inputs=inputs, outputs=outputs)


def _described(handoff: Handoff) -> dict[str, Any]:
    """Facets with a table's version, columns and description."""
    from openlineage.client.facet_v2 import dataset_version_dataset, documentation_dataset, schema_dataset

    from schemas.tables import TABLES

    version = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(handoff.version))
    contract = TABLES.get(handoff.table)
    if contract is None:
        return {"version": version}
    fields = [
        schema_dataset.SchemaDatasetFacetFields(name=column.name, type=str(column.type), description=column.description)
        for column in contract.columns
    ]
    return {
        "version": version,
        "schema": schema_dataset.SchemaDatasetFacet(fields=fields),
        "documentation": documentation_dataset.DocumentationDatasetFacet(description=contract.description),
    }


def place(uri: str) -> tuple[str, str]:
    """OpenLineage's namespace and name of a table's address."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return "file", parts.path
    return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")
