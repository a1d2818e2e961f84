"""Sources of annotated images: schemas here are torch-free, readers lie beside them.

To add a format: write its `DataSource` in a module of this package and import it below; its `read` returns
`Annotations`, everything after that (filters, pipelines, batches, evaluation) is shared.
"""

from detc.runtime.data.sources.algebra import Folder, Part, Relabel, Unlabelled
from detc.runtime.data.sources.schema import CocoJson, Concat, MotSequences, PanopticJson, PascalVoc, YoloTxt

__all__ = [
    "CocoJson",
    "Concat",
    "Folder",
    "MotSequences",
    "PanopticJson",
    "Part",
    "PascalVoc",
    "Relabel",
    "Unlabelled",
    "YoloTxt",
]
